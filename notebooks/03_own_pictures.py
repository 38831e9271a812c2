# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Distil your own pictures
#
# A folder of pictures, one folder per class, becomes a few synthetic pictures per class. This
# notebook makes such a folder (shapes in colours, few of the last classes), lets the package choose
# its settings, distils, and looks at the result. To do it with your own pictures, replace `FOLDER`.
# It takes about half a minute on two cores; a second start finds the results on disk.
#
# In a fresh kernel: `%pip install 'ltdd_jax[notebooks]'`, or `%pip install -e '.[notebooks]'` in a
# checkout. The script `03_own_pictures.py` is the source of this notebook (jupytext).

# %%
import json
import pathlib
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

import ltdd_jax

BLUE, GREEN = "#0072B2", "#009E73"  # Okabe and Ito
FOLDER = pathlib.Path("runs/notebook_pictures/shapes")
WORKDIR = pathlib.Path("runs/notebook_pictures/result")

# %% [markdown]
# ## A folder with a long tail
#
# Four shapes in any colour, place and size on a noisy background: 160 circles, but only 16 stars.
# A folder `test` beside `train` would be used for testing; there is none, so a fifth of each class
# is held out.

# %%
CORNERS = {"square": (4, 1.0), "triangle": (3, 1.0), "star": (10, 0.4)}  # and the inner radius
COUNTS = {"circle": 160, "square": 80, "triangle": 40, "star": 16}


def draw_shape(rng, shape):
    """A picture of 20 x 20 pixels."""
    picture = Image.fromarray(rng.integers(0, 90, (20, 20, 3), dtype=np.uint8))
    radius, color = rng.uniform(5, 8), tuple(int(x) for x in rng.integers(140, 256, 3))
    x, y = rng.uniform(radius, 20 - radius, 2)
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
        return picture
    corners, inner = CORNERS[shape]
    angles = np.arange(corners) * 2 * np.pi / corners + rng.uniform(0, 2 * np.pi)
    radii = radius * np.where(np.arange(corners) % 2, inner, 1.0)
    pen.polygon([*zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)], color)
    return picture


rng = np.random.default_rng(0)
shutil.rmtree(FOLDER, ignore_errors=True)
for shape, count in COUNTS.items():
    (FOLDER / shape).mkdir(parents=True)
    for i in range(count):
        draw_shape(rng, shape).save(FOLDER / shape / f"{i:03}.png")

figure, axes = plt.subplots(4, 8, figsize=(4.8, 2.8), layout="constrained")
for row, shape in zip(axes, COUNTS, strict=True):
    for i, axis in enumerate(row):
        axis.imshow(Image.open(FOLDER / shape / f"{i:03}.png"))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"{shape}\n{COUNTS[shape]}", rotation=0, ha="right", va="center")
figure.suptitle("the first eight pictures of each class, and how many there are", fontsize=10)
plt.show()

# %% [markdown]
# ## What the package would do
#
# In a terminal it is one command:
#
# ```bash
# ltdd --config=pictures --config.data.path=FOLDER
# ```
#
# With `--dry_run` it only says what it has chosen from the pictures and this machine, and why.
# `pictures:standard` and `pictures:thorough` take longer and choose more.

# %%


def ltdd(*arguments):
    """Runs the command and returns what it prints, with paths as seen from here."""
    command = [sys.executable, "-m", "ltdd_jax.main", "--config=pictures"]
    command += [f"--config.data.path={FOLDER}", f"--workdir={WORKDIR}", *arguments]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return printed.replace(f"{pathlib.Path.cwd()}/", "")


print(ltdd("--dry_run"))

# %% [markdown]
# ## Distil
#
# Whatever is set by hand stays as it is. Here nearly everything is made smaller, to wait for half a
# minute and not for three; leave these lines out for your own pictures. The first number is worth
# a thought in any case: how many synthetic pictures of each class you want. Where a mirrored
# picture would be of another class (digits, letters), also give `--config.augment.strategy` without
# `flip`.

# %%
SMALLER = {
    "distill.ipc": 4,
    "net.width": 16,
    "experts.num_experts": 3,
    "experts.representation.num_epochs": 20,
    "experts.representation.batch_size": 64,
    "trajectory.num_iterations": 60,
    "trajectory.label_lr": 1.0,
    "trajectory.representation.student_steps": 10,
    "trajectory.representation.max_start_epoch": 12,
    "trajectory.representation.current_start_epoch": 12,
    "trajectory.classifier.student_steps": 10,
    "trajectory.initial_step_size": 0.05,
    "evaluation.num_epochs": 100,
    "evaluation.full_num_epochs": 40,
    "evaluation.num_seeds": 3,
    "evaluation.baseline_rates": (0.05,),
    "evaluation.extra_rows": (),
}
printed = ltdd(*[f"--config.{field}={value}" for field, value in SMALLER.items()])
print(printed.splitlines()[-1])

# %% [markdown]
# ## Look at the result
#
# The file named above is the whole report as one page for a browser. From Python,
# `load_dataset` reads the set. Above each picture stands how sure its soft label is of the class.
# The distilled pictures still resemble the real ones that they began as; what was changed serves
# the training and need not please the eye. The labels are learned too, and may move some way
# towards other classes.

# %%
distilled = ltdd_jax.load_dataset(WORKDIR)
figure, axes = plt.subplots(4, 4, figsize=(3.4, 3.9), layout="constrained")
for i, axis in enumerate(axes.ravel()):
    axis.imshow(distilled.pixels[i])
    axis.set_title(
        f"{100 * distilled.label_probabilities[i, distilled.labels[i]]:.0f} %", fontsize=8
    )
    axis.set(xticks=[], yticks=[])
    if i % 4 == 0:
        axis.set_ylabel(distilled.class_names[distilled.labels[i]])
plt.show()

# %% [markdown]
# ## What it is worth
#
# Networks trained on the sixteen pictures, tested on the held-out ones, beside sixteen random
# pictures and all of them. Balanced accuracy counts every class alike, however few its test
# pictures; guessing gives 25 %. All numbers are in `report.json`. The held-out pictures are few
# here, three of them stars, so differences of some points mean nothing.

# %%
results = json.loads((WORKDIR / "report.json").read_text())["results"]
ROWS = {"distilled": "16 distilled", "random_real": "16 random real", "full_real": "all real"}
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
for shift, which, color, name in (
    (-0.2, "mean", BLUE, "all"),
    (0.2, "balanced", GREEN, "balanced"),
):
    values = [results[row][which] for row in ROWS]
    bars = axis.bar(np.arange(3) + shift, values, 0.4, color=color, label=name)
    axis.bar_label(bars, fmt="%.0f", fontsize=8)
axis.axhline(25, color="black", ls=":")
axis.set_xticks(range(3), list(ROWS.values()))
axis.set(ylabel="test accuracy in %", ylim=(0, 110))
axis.legend(ncols=2, loc="upper left")
plt.show()

# %% [markdown]
# ## Take it away
#
# As PNG files in class folders, with the soft labels in a table, for any other program. Further
# formats and the training on such a set are in `04_use_a_set`.

# %%
OUT = WORKDIR.with_name("exported")
shutil.rmtree(OUT, ignore_errors=True)
ltdd_jax.export_dataset(distilled, "png", OUT)
print(*sorted(str(path.relative_to(OUT)) for path in OUT.rglob("*") if path.is_file()), sep=", ")
