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
# # Where does the accuracy come from: images, labels or teacher?
#
# A network that learned from a distilled set is better than one that learned from as many random
# real images. But the two often differ in more than their images: the distilled set may come with
# soft labels, or with a teacher that labels every augmented view anew during training. Give the
# same to the random images, and see what is left. The question is that of DD-Ranking (2025).
#
# The numbers here are small on purpose: twenty 8 x 8 digits, a network of 3 thousand parameters, a
# short distillation, three networks per bar, about a minute on two cores. They show how to ask, and
# say nothing about other data or methods.
#
# In a fresh kernel: `%pip install 'ltdd_jax[notebooks]'`, or `%pip install -e '.[notebooks]'` in a
# checkout. The script `06_images_labels_or_teacher.py` is the source of this notebook (jupytext).

# %%
import json
import pathlib

import matplotlib.pyplot as plt

import ltdd_jax
from ltdd_jax.data import long_tail, sources

BLUE, GREEN = "#0072B2", "#009E73"  # Okabe and Ito
WORKDIR = pathlib.Path("runs/notebook_origin")

train = sources.load_source("digits", "train")
train = train.take(long_tail.select_long_tail(train.labels, train.num_classes, 20.0))
test = sources.load_source("digits", "test")
print(f"{len(train.labels)} training images, by class {train.class_counts().tolist()}")

# %% [markdown]
# ## One run, two blocks
#
# A run trains networks in two ways and never mixes the results. In *block (i)* every image has one
# label, hard (a class) or soft (a probability for each class). In *block (ii)* a teacher looks at
# every augmented view that a student learns from and labels that. The teacher is a network trained
# on the long-tailed set, with its logits adjusted to the class frequencies.
#
# The set is distilled once, with soft labels of its own. The second call changes the labels alone:
# `labels.relabel="teacher"` gives each image, distilled or random, the teacher's answer as its one
# label. What is there already is not computed again. All results are in `report.json`.

# %%
SETTINGS = {
    "net.width": 16,
    "net.depth": 2,
    "augment.strategy": "color_crop_cutout_scale_rotate",
    "experts.num_experts": 3,
    "experts.representation.num_epochs": 15,
    "experts.representation.batch_size": 64,
    "experts.classifier.num_epochs": 5,
    "experts.classifier.batch_size": 64,
    "trajectory.num_iterations": 100,
    "trajectory.image_lr": 10.0,
    "trajectory.classifier.loss_weight": 1.0,
    "trajectory.representation.student_steps": 10,
    "trajectory.representation.max_start_epoch": 12,
    "trajectory.representation.current_start_epoch": 6,
    "trajectory.classifier.student_steps": 10,
    "teacher.num_epochs": 60,
    "teacher.learning_rate": 0.1,
    "evaluation.blocks": ("i", "ii"),
    "evaluation.extra_rows": ("hard",),
    "evaluation.num_epochs": 100,
    "evaluation.full_num_epochs": 40,
    "evaluation.num_seeds": 3,
    "evaluation.baseline_rates": (0.1,),
    "student.num_epochs": 300,
    "student.learning_rates": (0.1,),
    "student.area": (0.5, 1.0),  # of 8 x 8 pixels
    "student.flip": "off",  # a mirrored digit is another sign
}


def run(**labels):
    """Distils with the labels that are asked for and returns the results of all rows."""
    ltdd_jax.distill_dataset(
        train.images,
        train.labels,
        images_per_class=2,
        test_images=test.images,
        test_labels=test.labels,
        workdir=str(WORKDIR),
        settings=SETTINGS | {f"labels.{name}": value for name, value in labels.items()},
    )
    return json.loads((WORKDIR / "report.json").read_text())


own, relabelled = run(), run(relabel="teacher")

# %% [markdown]
# ## Side by side
#
# Bars are means of three networks, with their standard deviation. Left of the line is block (i):
# the dotted line is what the whole training set of 417 images gives there. Right of it is block
# (ii): there the dotted line is the teacher itself. The blocks also differ in augmentation and in
# the number of steps (101 and 300), so compare bars within a block.

# %%
GROUPS = {  # name -> the rows of distilled and of random real images
    "hard labels": (own, "distilled_hard", "random_real"),
    "one soft label,\nlearned with it": (own, "distilled", None),
    "one soft label,\nthe teacher's": (relabelled, "distilled", "random_real_soft"),
    "teacher labels\nevery view": (own, "ii_distilled", "ii_random_real"),
}
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for shift, which, color, name in ((-0.2, 0, BLUE, "distilled"), (0.2, 1, GREEN, "random real")):
    rows = [
        (i, g[0]["results"][g[1 + which]]) for i, g in enumerate(GROUPS.values()) if g[1 + which]
    ]
    bars = axis.bar(
        [i + shift for i, _ in rows],
        [row["mean"] for _, row in rows],
        0.4,
        yerr=[row["std"] for _, row in rows],
        color=color,
        label=f"20 {name} images",
    )
    axis.bar_label(bars, fmt="%.0f", fontsize=8, label_type="center", color="white")
axis.axvline(2.5, color="black", lw=1)
axis.hlines(own["results"]["full_real"]["mean"], -0.5, 2.5, color="black", ls=":")
axis.hlines(own["teachers"]["teacher"]["mean"], 2.5, 3.5, color="black", ls=":")
for x, y, words in (
    (1, 101, "block (i)"),
    (3, 101, "block (ii)"),
    (1, own["results"]["full_real"]["mean"] + 2, "all 417 images, hard labels"),
    (3, own["teachers"]["teacher"]["mean"] + 2, "the teacher"),
):
    axis.text(x, y, words, fontsize=9, ha="center")
axis.set_xticks(range(len(GROUPS)), list(GROUPS))
axis.set(ylabel="test accuracy in %", ylim=(0, 110), xlim=(-0.5, 3.5))
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# ## What is left
#
# Each line takes one thing away. The *images* are what distilled and random ones differ in under
# equal labels.

# %%
mean = {name: row["mean"] for name, row in own["results"].items()}
same = {name: row["mean"] for name, row in relabelled["results"].items()}
for words, points in (
    (
        "distilled with its own labels, over random with hard ones",
        mean["distilled"] - mean["random_real"],
    ),
    ("images alone, hard labels on both", mean["distilled_hard"] - mean["random_real"]),
    ("images alone, the teacher's label on both", same["distilled"] - same["random_real_soft"]),
    ("images alone, the teacher labels every view", mean["ii_distilled"] - mean["ii_random_real"]),
    (
        "labels alone, on random images: the teacher's in place of hard",
        same["random_real_soft"] - mean["random_real"],
    ),
):
    print(f"{words:63} {points:+5.1f} points")

# %% [markdown]
# With hard labels the distilled images are ahead, by little more than the spread of three networks.
# The larger part of their lead came from soft labels: with the teacher's label random images gain
# as much, and the two are alike. Where the teacher labels every view, nothing is left of the lead,
# and what both reach is the teacher's doing. So a result of block (ii) is to be read against random
# images with the same teacher, never against block (i).
#
# Two things to know when reading the bars. Distilled images are trained on at the learning rate
# they were made for, random ones at 0.1 (a single value here; several are tuned on held-out
# images). And the teacher saw all 417 images, so whoever asks it learns from more than twenty.
