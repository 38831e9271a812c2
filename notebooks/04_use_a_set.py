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
# # Use a distilled set
#
# Twenty distilled digits, and what can be trained on them: a network in JAX, one in PyTorch, and
# estimators of scikit-learn, each beside twenty random real digits. The set is distilled first,
# with small numbers (about a minute on two cores; a second start finds it on disk).
#
# In a fresh kernel: `%pip install 'ltdd_jax[notebooks]' torch`, or `%pip install -e
# '.[notebooks]'` in a checkout. The script `04_use_a_set.py` is the source of this notebook
# (jupytext).

# %%
import dataclasses
import importlib.util

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import ltdd_jax
from ltdd_jax.data import long_tail, sources

BLUE, GREEN = "#0072B2", "#009E73"  # Okabe and Ito

train = sources.load_source("digits", "train")
train = train.take(long_tail.select_long_tail(train.labels, train.num_classes, 20.0))
test = sources.load_source("digits", "test")
distilled = ltdd_jax.distill_dataset(
    train.images,
    train.labels,
    images_per_class=2,
    test_images=test.images,
    test_labels=test.labels,
    workdir="runs/notebook_use",
    settings={
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
        "evaluation.num_epochs": 100,
        "evaluation.full_num_epochs": 20,
        "evaluation.num_seeds": 3,
        "evaluation.baseline_rates": (0.1,),
    },
)

# %% [markdown]
# ## What is in it
#
# Pixels to look at, whitened images to train on, a soft label for each. Above the distilled images
# stands how sure its label is of the class.

# %%
figure, axes = plt.subplots(2, 10, figsize=(8, 2.2), layout="constrained")
for i, axis in enumerate(axes.T.ravel()):
    axis.imshow(distilled.pixels[i, ..., 0], cmap="gray_r", vmin=0, vmax=255)
    axis.set_title(
        f"{100 * distilled.label_probabilities[i, distilled.labels[i]]:.0f} %", fontsize=8
    )
    axis.set(xticks=[], yticks=[])
for k in range(10):
    axes[1, k].set_xlabel(f"class {k}")
plt.show()
print(f"{distilled.images.shape} {distilled.images.dtype}, learning rate {distilled.step_size:.3f}")

# %% [markdown]
# ## The same for real images
#
# As many, drawn at random, with the same whitening. All of what follows is done with both.

# %%
rng = np.random.default_rng(0)
rows = np.concatenate([rng.choice(np.flatnonzero(train.labels == k), 2, False) for k in range(10)])
real = distilled.whiten(train.images[rows]), train.labels[rows]
white = distilled.whiten(test.images)
accuracies: dict[str, tuple[float, float]] = {}

# %% [markdown]
# ## scikit-learn
#
# Estimators that take one class per image do without the soft labels.

# %%
for name, model in (
    ("logistic regression", LogisticRegression(max_iter=500)),
    ("nearest neighbour", KNeighborsClassifier(1)),
):
    scores = [
        100 * model.fit(x.reshape(20, -1), y).score(white.reshape(len(white), -1), test.labels)
        for x, y in ((distilled.images, distilled.labels), real)
    ]
    accuracies[name] = scores[0], scores[1]

# %% [markdown]
# ## JAX
#
# `evaluate_dataset` trains fresh networks of the kind the set was distilled with. The real images
# become a set of their own by replacing the arrays; their labels are hard, and the rate is 0.1.

# %%
hard = np.log(np.eye(10, dtype=np.float32)[real[1]] * 0.999 + 1e-4)
as_set = dataclasses.replace(distilled, images=real[0], labels=real[1], label_logits=hard)
results = [
    ltdd_jax.evaluate_dataset(each, test.images, test.labels, num_seeds=3, num_epochs=100, **more)
    for each, more in ((distilled, {}), (as_set, {"learning_rate": 0.1}))
]
accuracies["ConvNet, JAX"] = results[0]["mean"], results[1]["mean"]

# %% [markdown]
# ## PyTorch
#
# A network written there, the soft labels as targets. The cell is passed over where PyTorch is not
# installed.

# %%
if importlib.util.find_spec("torch"):
    import torch
    from torch import nn

    def train_in_torch(images, targets, rate):
        """Accuracy in % of a small network on the test images."""
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 32, 3, padding=1), nn.GroupNorm(32, 32), nn.ReLU(), nn.AvgPool2d(2)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))
        optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), torch.from_numpy(targets)).backward()
            optimizer.step()
        found = net(torch.from_numpy(white).permute(0, 3, 1, 2)).argmax(dim=1).numpy()
        return 100 * np.mean(found == test.labels)

    accuracies["ConvNet, PyTorch"] = (
        train_in_torch(distilled.images, distilled.label_probabilities, distilled.step_size),
        train_in_torch(real[0], np.eye(10, dtype=np.float32)[real[1]], 0.05),
    )

# %% [markdown]
# ## Side by side
#
# Twenty images each. The distilled ones were made for a network of the first kind and carry more
# to it than to others; what they are worth to an estimator of another kind has to be measured.

# %%
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
places = np.arange(len(accuracies))
for shift, which, color, name in ((-0.2, 0, BLUE, "distilled"), (0.2, 1, GREEN, "random real")):
    bars = axis.bar(
        places + shift, [a[which] for a in accuracies.values()], 0.4, color=color, label=name
    )
    axis.bar_label(bars, fmt="%.0f", fontsize=8)
axis.set_xticks(places, accuracies)
axis.set(ylabel="test accuracy in %", ylim=(0, 100))
axis.legend(loc="upper left", ncols=2)
plt.show()
