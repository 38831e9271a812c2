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
# # What experts do
#
# Distillation matches the paths of *experts*: networks trained on the long-tailed set, with a
# snapshot of all parameters per epoch. This notebook trains a few on the handwritten digits (some
# seconds; a second start finds them on disk), opens their trajectories and asks two questions: how
# far does each layer travel, and do different experts travel in the same direction?
#
# `pip install -e '.[notebooks]'`, then run it from this folder or from the one above. The script
# `01_trajectories.py` is its source (jupytext).

# %%
import itertools
import pathlib
import runpy

import jax
import matplotlib.pyplot as plt
import numpy as np

from ltdd_jax import pipeline
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
