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
# # The geometry of trajectories
#
# Experts, students and what the long tail does to both, on the handwritten digits: 417 images, 124
# of the first class and 6 of the last. Everything here is a call of `ltdd_jax.geometry` on
# snapshots, which are nested dicts of parameters. It takes about a minute on two cores; a second
# start finds the experts on disk.
#
# In a fresh kernel: `%pip install 'ltdd_jax[notebooks]'`, or `%pip install -e '.[notebooks]'` in a
# checkout. The script `02_geometry.py` is the source of this notebook (jupytext).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ltdd_jax
from ltdd_jax import geometry, losses
from ltdd_jax.data import long_tail, normalize, sources

BLUE, ORANGE, PURPLE = "#0072B2", "#E69F00", "#CC79A7"  # Okabe and Ito

train = sources.load_source("digits", "train")
train = train.take(long_tail.select_long_tail(train.labels, train.num_classes, 20.0))
test = sources.load_source("digits", "test")
EPOCHS, CLASSIFIER_EPOCHS = 12, 5
experts = ltdd_jax.train_experts(
    train.images,
    train.labels,
    test_images=test.images,
    test_labels=test.labels,
    workdir="runs/notebook_geometry",
    settings={
        "net.width": 16,
        "net.depth": 2,
        "experts.num_experts": 3,
        "experts.representation.num_epochs": EPOCHS,
        "experts.representation.batch_size": 64,
        "experts.classifier.num_epochs": CLASSIFIER_EPOCHS,
        "experts.classifier.batch_size": 64,
        "trajectory.representation.current_start_epoch": 4,  # what would be matched: not here
        "trajectory.representation.max_start_epoch": 10,
    },
)

# %% [markdown]
# ## The path of one expert
#
# `fit_plane` finds the plane in which the snapshots spread most, without ever holding them all;
# the title says how much of the spread it shows. The representation expert takes the first part
# of the path, on long-tailed batches. Then the backbone is frozen, and the classifier expert goes
# on with class-balanced batches, in another direction.

# %%
path = [("representation", t) for t in range(EPOCHS + 1)]
path += [("classifier", t) for t in range(1, CLASSIFIER_EPOCHS + 1)]
plane = geometry.fit_plane(lambda i: experts.snapshot(path[i][0], 0, path[i][1]), len(path))
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.plot(*plane.coordinates[: EPOCHS + 1].T, "o-", color=ORANGE, label="representation expert")
axis.plot(*plane.coordinates[EPOCHS:].T, "^-", color=BLUE, label="classifier expert")
axis.annotate("start", plane.coordinates[0], textcoords="offset points", xytext=(6, 6))
axis.set(xlabel="first principal direction", ylabel="second principal direction")
axis.set_title(f"{100 * plane.shares.sum():.0f} % of the spread lies in this plane", fontsize=10)
axis.legend()
plt.show()

# %% [markdown]
# ## The classifier carries the tail
#
# The length of the weights that lead to a class, before and after training on the long tail
# (representation expert), and after the class-balanced second stage (classifier expert). The
# first stage lengthens the weights of the common classes most.

# %%
norms = {
    "start": geometry.classifier_norms([experts.snapshot("representation", 0, 0)])[0],
    "long-tailed batches": geometry.classifier_norms([experts.snapshot("representation", 0)])[0],
    "then class-balanced batches": geometry.classifier_norms([experts.snapshot("classifier", 0)])[
        0
    ],
}
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for (name, values), color, style in zip(
    norms.items(), ("#999999", ORANGE, BLUE), ("o:", "s-", "^-"), strict=True
):
    axis.plot(values, style, color=color, label=name)
counts = train.class_counts()
axis.set_xticks(range(10), [f"{k}\n{n}" for k, n in enumerate(counts)])
axis.set(xlabel="class, and its training images", ylabel="norm of its weights", ylim=(0.5, 0.7))
axis.legend(ncols=3, fontsize="small", loc="upper center")
plt.show()

# %% [markdown]
# ## Whose gradient is it?
#
# The gradient of the loss, taken apart by the class of the image. Early in training the step is
# made by the common classes: a class with few images hardly takes part.

# %%
preprocessing = normalize.fit(train.images)
images = jnp.asarray(normalize.apply(preprocessing, train.images))
labels = jnp.asarray(train.labels)
gradients = jax.jit(
    lambda params: geometry.class_gradients(experts.network.apply, params, images, labels, 10)
)
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for epoch, color, shift in ((0, "#999999", -0.2), (EPOCHS, PURPLE, 0.2)):
    shares = geometry.gradient_shares(gradients(experts.snapshot("representation", 0, epoch)))
    axis.bar(
        np.arange(10) + shift, 100 * shares.length, 0.4, color=color, label=f"after {epoch} epochs"
    )
axis.plot(100 * counts / counts.sum(), "k_", ms=16, label="share of the images")
axis.set_xticks(range(10), [f"{k}\n{n}" for k, n in enumerate(counts)])
axis.set(xlabel="class, and its training images", ylabel="share of the gradient, %")
axis.legend()
plt.show()

# %% [markdown]
# ## A student on twenty balanced images
#
# A student starts at a snapshot of an expert and takes as many steps as the expert takes in two
# epochs, on two images of each class. It is to end where the expert is then. With the plain loss
# it follows a gradient in which all classes count alike, which is not the one that moved the
# expert. Distribution-agnostic matching weights the student's loss by the class frequencies of
# the real data. The vertical axis is the distance to the target in units of the expert's way: 1
# at the start, 0 at the target; its square is the matching loss.
#
# Here the classifier of the weighted student comes half of the way, and that of the plain one
# does not come nearer at all. In the first layer both leave the way after a few steps: twenty
# real images are not enough, and to make better ones is what distillation is for.

# %%
START, STEPS, RATE = 1, 14, 0.01  # as many steps as the expert takes in two epochs
rows = np.concatenate([np.flatnonzero(train.labels == k)[:2] for k in range(10)])
own_images, own_labels = images[rows], labels[rows]
frequencies = jnp.asarray(counts / counts.mean(), jnp.float32)


def walk(weights):
    """Snapshots of a student that takes STEPS steps on the twenty images."""

    def loss(params):
        each = losses.cross_entropy(experts.network.apply(params, own_images), own_labels)
        return jnp.mean(weights[own_labels] * each)

    step = jax.jit(
        lambda params: jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params))
    )
    path = [experts.snapshot("representation", 0, START)]
    for _ in range(STEPS):
        path.append(step(path[-1]))
    return path


expert_path = [experts.snapshot("representation", 0, START + t) for t in range(3)]
students = {"plain loss": walk(jnp.ones(10)), "weighted by class frequency": walk(frequencies)}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
for (name, path), color, style in zip(students.items(), (ORANGE, BLUE), ("--", "-"), strict=True):
    compared = geometry.compare_paths(path, expert_path)
    for axis, layer in zip(axes, ("block_0/conv", "classifier"), strict=True):
        axis.plot(compared[layer].remaining, style, color=color, label=name)
        axis.set(title=layer, xlabel="step of the student")
axes[0].set_ylabel("distance to the target")
axes[0].legend()
plt.show()
