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
# # The long tail, and what experts do
#
# Distillation matches the paths of *experts*: networks trained on the long-tailed set, with a
# snapshot of all parameters per epoch. This notebook trains a few on the handwritten digits (some
# seconds; a second start finds them on disk), opens their trajectories and asks three questions:
# what has the long tail done to them, how far does each layer travel, and do different experts
# travel in the same direction?
#
# `%pip install -e '.[notebooks]'`, then run it from this folder or from the one above. The script
# `01_trajectories.py` is its source (jupytext).

# %%
import itertools
import pathlib
import runpy

import jax
import matplotlib.pyplot as plt
import numpy as np

from ltdd_jax import geometry, pipeline
from ltdd_jax.pipeline.experts import open_trajectories

root = pathlib.Path() if pathlib.Path("configs").exists() else pathlib.Path("..")
config = runpy.run_path(str(root / "configs" / "digits_lt.py"))["get_config"]("smoke")
config.experts.num_experts = 4
config.experts.representation.num_epochs = 12
workdir = str(root / "runs" / "notebook_trajectories")
pipeline.run(config, workdir, stage="experts")

# %% [markdown]
# ## Opening the trajectories of a workdir
#
# `read(expert, epoch, like)` reads one snapshot; `like` says which parameters, and of what shapes,
# to expect. Trajectories of other settings lie in directories of their own, beside these.

# %%
run = pipeline.open_run(config, workdir)
trajectories = open_trajectories(run, "representation")
like = jax.eval_shape(run.problem.network.init, jax.random.key(0))
experts = trajectories.complete_experts()
epochs = range(trajectories.num_epochs + 1)


def flatten(tree):
    """All parameters below a node as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


snapshots = {(e, t): trajectories.read(e, t, like) for e in experts for t in epochs}
print(f"experts {experts}, epochs 0 to {trajectories.num_epochs}, layers {sorted(like)}")

# %% [markdown]
# ## Why plain matching fails on a long tail
#
# Three views of the experts, means over all of them. Left: they put nearly everything into the
# common classes and recognise none of the rare ones. Middle: a reason can be seen in the
# classifier, where the weights of the common classes have grown more than the others. Right: it
# starts with the first step, whose gradient is made by the common classes.
#
# Plain trajectory matching asks a student to follow such a path, with synthetic images of which
# there are as many in every class. Either it does not get there, or the images learn to be biased
# as well. The paper's answers are to weight the student's loss by the class frequencies and to
# match the classifier apart, with experts that see balanced batches (arXiv 2408.14506);
# `02_geometry` shows what both do.

# %%
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"  # Okabe and Ito
GREY = "#999999"
plt.rc("axes", prop_cycle=plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE]))
problem, last = run.problem, trajectories.num_epochs
counts, classes = np.asarray(problem.class_counts), np.arange(problem.num_classes)
apply = jax.jit(problem.network.apply)
hits = [
    np.argmax(apply(snapshots[e, last], problem.test_images), axis=1) == problem.test.labels
    for e in experts
]
accuracy = [100 * np.mean([hit[problem.test.labels == k] for hit in hits]) for k in classes]
norms = [
    geometry.classifier_norms(snapshots[e, t] for e in experts).mean(axis=0) for t in (0, last)
]
gradients = jax.jit(
    lambda params: geometry.class_gradients(
        problem.network.apply, params, problem.train_images, problem.train.labels, len(classes)
    )
)
shares = [geometry.gradient_shares(gradients(snapshots[e, 0])).length for e in experts]

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
axes[0].bar(classes, accuracy, color=ORANGE)
axes[0].set(ylabel="test accuracy of the class in %", ylim=(0, 105))
axes[1].plot(classes, norms[0], "o:", color=GREY, label="start")
axes[1].plot(classes, norms[1], "s-", color=ORANGE, label=f"after {last} epochs")
axes[1].set(ylabel="norm of the weights of the class")
axes[1].legend()
axes[2].bar(classes, 100 * np.mean(shares, axis=0), color=BLUE, label="share of the gradient")
axes[2].plot(classes, 100 * counts / counts.sum(), "k_", ms=10, label="share of the images")
axes[2].set(ylabel="share of the class in %", ylim=(0, 40))
axes[2].legend()
for axis in axes:
    axis.set_xticks(classes, [f"{k}\n{n}" for k, n in enumerate(counts)], fontsize=8)
    axis.set_xlabel("class, and its training images")
plt.show()

# %% [markdown]
# ## How far each layer travels
#
# The distance from the start, relative to the size of the layer at the start, averaged over the
# experts. The matching loss divides by the squared distance between two snapshots of the expert, so
# where experts hardly move, small errors of the student weigh much.


# %%
def relative_distance(layer):
    """||θ_t - θ_0|| / ||θ_0|| of one layer for every epoch t, mean over the experts."""
    paths = np.array([[flatten(snapshots[e, t][layer]) for t in epochs] for e in experts])
    travelled = np.linalg.norm(paths - paths[:, :1], axis=2)
    return (travelled / np.linalg.norm(paths[:, :1], axis=2)).mean(axis=0)


distances = {layer: relative_distance(layer) for layer in sorted(like)}
plt.figure(figsize=(6, 3.5))
for layer, values in distances.items():
    plt.plot(epochs, values, marker="o", label=layer)
plt.xlabel("epoch")
plt.ylabel("relative distance from the start")
plt.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Whether experts travel in the same direction
#
# The angle between the displacements of two experts from their starts, for every pair: the mean,
# and the range as a shade. Experts start from different random weights, so their hidden units have
# no common order, and directions that name hidden units have little in common (90 degrees is no
# agreement). The biases of the classifier belong to the classes instead, and all experts move them
# towards the class frequencies of the long tail. Its kernel is in between: features are not
# negative, so what raises or lowers a whole class has the same sign in every expert.


# %%
def pair_angles(part):
    """Angle in degrees between the displacements of every pair of experts, [pairs, epochs 1..]."""
    moved = {
        e: np.array([flatten(part(snapshots[e, t])) for t in later])
        - flatten(part(snapshots[e, 0]))
        for e in experts
    }
    unit = {e: path / np.linalg.norm(path, axis=1, keepdims=True) for e, path in moved.items()}
    cosines = [(unit[a] * unit[b]).sum(axis=1) for a, b in itertools.combinations(experts, 2)]
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


later = epochs[1:]
parts = {
    "kernel of block_0": lambda params: params["block_0"]["conv"]["kernel"],
    "kernel of block_1": lambda params: params["block_1"]["conv"]["kernel"],
    "kernel of the classifier": lambda params: params["classifier"]["kernel"],
    "biases of the classifier": lambda params: params["classifier"]["bias"],
}
plt.figure(figsize=(6, 3.5))
for name, part in parts.items():
    angles = pair_angles(part)
    plt.plot(later, angles.mean(axis=0), marker="o", label=name)
    plt.fill_between(later, angles.min(axis=0), angles.max(axis=0), alpha=0.2)
plt.xlabel("epoch")
plt.ylabel("angle between two experts, degrees")
plt.ylim(0, 140)
plt.legend(ncols=2, loc="upper right", fontsize="small")
plt.tight_layout()
plt.show()
