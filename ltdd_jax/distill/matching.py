"""How far the student ended from the expert it should follow."""

import jax
import optax

from ltdd_jax.nets import partition
from ltdd_jax.types import Params

PARTS = ("all", "backbone", "classifier")


def select_part(params: Params, part: str) -> Params:
    """The parameters that `part` ("all", "backbone" or "classifier") names.

    Raises:
      ValueError: unknown part.
    """
    if part == "all":
        return params
    backbone, classifier = partition.split(params)
    if part == "backbone":
        return backbone
    if part == "classifier":
        return classifier
    raise ValueError(f"part must be one of {PARTS}, not {part!r}")


def squared_distance(a: Params, b: Params) -> jax.Array:
    """‖a - b‖² over all leaves; scalar."""
    return optax.tree.norm(jax.tree.map(lambda x, y: x - y, a, b), squared=True)


def matching_loss(final: Params, start: Params, target: Params) -> jax.Array:
    """‖θ̂_N - θ*_{t+M}‖² / ‖θ*_t - θ*_{t+M}‖² (MTT, Cazenavette et al., CVPR 2022, eq. 2).

    1 means no progress. No constant is added to the denominator, as published.

    Args:
      final: parameters of the student after its last step.
      start: expert snapshot the student started from.
      target: expert snapshot some epochs later.

    Returns:
      Scalar >= 0.
    """
    return squared_distance(final, target) / squared_distance(start, target)
