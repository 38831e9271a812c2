"""A snapshot as one long vector, or as one vector per layer; all in float64 on the host."""

import flax.traverse_util
import jax
import numpy as np

from ltdd_jax.types import Params


def flatten(params: Params) -> np.ndarray:
    """All D parameters as a vector float64 [D], in the order of `jax.tree.leaves`."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(params)])


def unflatten(vector: np.ndarray, like: Params) -> Params:
    """Inverse of `flatten`.

    Args:
      vector: [D].
      like: tree of leaves with `shape` and `dtype`; the result has these.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = np.split(np.asarray(vector), ends)
    shaped = [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def split_layers(params: Params) -> dict[str, np.ndarray]:
    """Parameters by layer.

    Args:
      params: nested dict.

    Returns:
      Path of the layer, joined by "/" -> its parameters (kernel, bias, ...) as a vector float64.
    """
    groups: dict[str, list[np.ndarray]] = {}
    for path, leaf in sorted(flax.traverse_util.flatten_dict(params).items()):
        groups.setdefault("/".join(path[:-1]), []).append(np.ravel(leaf).astype(np.float64))
    return {name: np.concatenate(parts) for name, parts in groups.items()}
