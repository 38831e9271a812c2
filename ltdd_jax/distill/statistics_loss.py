"""How far the statistics of a synthetic batch are from those of real images.

SRe2L (Yin et al., NeurIPS 2023) pulls the statistics of a batch to the running ones of the norms.
EDC (Shao et al., NeurIPS 2024) pulls running averages over the steps, in convolutions too, and
half of the way to the statistics of the classes that are in the batch.
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp

from ltdd_jax.distill import statistics
from ltdd_jax.distill.statistics import Moments
from ltdd_jax.types import Array


@flax.struct.dataclass
class Target:
    """What the statistics of a layer are pulled to.

    Attributes:
      overall: Moments [D].
      classes: Moments [K, D]; None where classes are not looked at.
    """

    overall: Moments
    classes: Moments | None


def measure_distance(a: Array, b: Array) -> jax.Array:
    """‖a - b‖₂, whose gradient is 0 where both are equal."""
    squares = jnp.square(a - b).sum()
    differ = squares > 0
    return jnp.where(differ, jnp.sqrt(jnp.where(differ, squares, 1.0)), 0.0)


def update_averages(
    averages: Mapping[str, Moments], batch: Mapping[str, Moments], decay: float
) -> tuple[dict[str, Moments], dict[str, Moments]]:
    """Running averages, v <- b v + (1 - b) x, and their values with the gradient of the batch.

    Args:
      averages: of the steps before, zeros at the start.
      batch: statistics x of this step.
      decay: b in [0, 1); 0 keeps nothing of earlier steps.

    Returns:
      The new averages without a gradient; and the same values, straight-through: their derivative
      is that of x itself, not of (1 - b) x.
    """
    found = dict(batch)
    moved: dict[str, Moments] = jax.lax.stop_gradient(
        jax.tree.map(lambda v, x: decay * v + (1 - decay) * x, dict(averages), found)
    )
    # The average is added to a zero that has the gradient of the batch.
    straight = jax.tree.map(lambda v, x: v + (x - jax.lax.stop_gradient(x)), moved, found)
    return moved, straight


def measure_layers(
    found: Mapping[str, Moments],
    targets: Mapping[str, Target],
    shares: jax.Array,
    *,
    class_weight: float,
    mixture: bool,
) -> dict[str, jax.Array]:
    """r = (1 - s)(‖var - v‖ + ‖mean - m‖) + s (‖V - v‖ + ‖M - m‖) for every layer; name -> scalar.

    Args:
      found: v and m of the synthetic batch, Moments [D].
      targets: of the same names.
      shares: [K], share of each class in the batch; V and M join the classes with these weights.
      class_weight: s; EDC 0.5, SRe2L 0.
      mixture: how V joins variances, see `statistics.join_classes`.
    """

    def distance(target, moments):
        of_mean = measure_distance(target.mean, moments.mean)
        return measure_distance(target.variance, moments.variance) + of_mean

    def one(target, moments):
        value = (1 - class_weight) * distance(target.overall, moments)
        if class_weight:
            joined = statistics.join_classes(target.classes, shares, mixture=mixture)
            value += class_weight * distance(joined, moments)
        return value

    return {name: one(targets[name], moments) for name, moments in found.items()}


def join_layers(values: Mapping[str, jax.Array], first: str, first_weight: float) -> jax.Array:
    """Σ_l k_l r_l with k = `first_weight` for all statistics of the layer `first`, 1 elsewhere."""
    of_first = (first, f"{first}{statistics.PATCHES}")
    weighted = [(first_weight if name in of_first else 1.0) * r for name, r in values.items()]
    return jnp.stack(weighted).sum()
