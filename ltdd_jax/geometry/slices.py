"""The loss on lines and planes through snapshots, for instance between two experts."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from ltdd_jax.types import Array, Params

Loss = Callable[[Params], Array]  # parameters -> scalar; jitted by the caller


def slice_line(loss: Loss, first: Params, second: Params, positions: Sequence[float]) -> np.ndarray:
    """The loss on the straight line through two snapshots (Goodfellow et al., ICLR 2015).

    Args:
      loss: parameters -> scalar.
      first: at position 0.
      second: at position 1.
      positions: P numbers; below 0 and above 1 lie outside of the two.

    Returns:
      float64 [P].
    """

    def between(position):
        return jax.tree.map(lambda a, b: (1 - position) * a + position * b, first, second)

    return np.array([float(loss(between(float(p)))) for p in positions], np.float64)


def loss_barrier(positions: Sequence[float], losses: Sequence[float]) -> float:
    """By how much the loss between two snapshots exceeds the straight line between their losses.

    0 means that they lie in one basin (Frankle et al., "Linear Mode Connectivity and the Lottery
    Ticket Hypothesis", ICML 2020; here with the interpolated loss in place of the mean of both).

    Args:
      positions: of `slice_line`, with 0 and 1 among them; those outside do not count.
      losses: at the positions.

    Returns:
      0 or more.

    Raises:
      ValueError: 0 or 1 is not among the positions.
    """
    at, found = np.asarray(positions, np.float64), np.asarray(losses, np.float64)
    if not {0.0, 1.0} <= set(at.tolist()):
        raise ValueError("positions must have 0 and 1 among them: the barrier lies between these")
    start, end = found[at == 0][0], found[at == 1][0]
    inside = (at >= 0) & (at <= 1)
    excess = found - ((1 - at) * start + at * end)
    return float(excess[inside].max())


def slice_plane(
    loss: Loss, lift: Callable[[np.ndarray], Params], x: Sequence[float], y: Sequence[float]
) -> np.ndarray:
    """The loss on a grid in a plane; the plane of three experts goes through all of them.

    Args:
      loss: parameters -> scalar.
      lift: coordinates [2] -> parameters, as `Plane.lift`.
      x: X coordinates along the first axis.
      y: Y coordinates along the second.

    Returns:
      float64 [Y, X], as contour plots take it.
    """
    return np.array([[float(loss(lift(np.array([a, b])))) for a in x] for b in y], np.float64)
