"""How well a student matches an expert from each epoch at which it may start.

Early parts of a trajectory hold easy patterns, late ones hard ones, and the range of start epochs
decides what the synthetic images learn (DATM, Guo et al., ICLR 2024).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ltdd_jax.distill import matching
from ltdd_jax.types import Params


@dataclasses.dataclass(frozen=True)
class StartLosses:
    """Arrays float64, one number per start epoch.

    Attributes:
      loss: matching loss; 1 is no progress, 0 is the target.
      expert_distance: ‖θ*_t - θ*_{t+M}‖, the root of the loss's denominator. Where it is small the
        loss asks for fine detail.
    """

    loss: np.ndarray
    expert_distance: np.ndarray


def match_by_start(
    run_student: Callable[[Params], Params],
    read: Callable[[int], Params],
    start_epochs: Sequence[int],
    expert_epochs: int,
    part: str = "all",
) -> StartLosses:
    """The matching loss by start epoch.

    Args:
      run_student: θ*_t -> θ̂_N, all parameters after the student's steps on a synthetic set.
      read: epoch -> snapshot of one expert.
      start_epochs: the t.
      expert_epochs: M, epochs from start to target.
      part: "all", "backbone" or "classifier", what is compared.

    Raises:
      ValueError: unknown part.
    """
    found = []
    for epoch in start_epochs:
        start, target = read(epoch), read(epoch + expert_epochs)
        final, start, target = (
            matching.select_part(p, part) for p in (run_student(start), start, target)
        )
        distance = matching.squared_distance(start, target)
        found.append((float(matching.matching_loss(final, start, target)), float(distance)))
    loss, square = np.array(found, np.float64).reshape(-1, 2).T
    return StartLosses(loss, np.sqrt(square))
