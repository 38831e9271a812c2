"""Types that every part of the package shares."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import numpy as np

from ltdd_jax.errors import Interrupted, UserError

__all__ = ["Array", "AugmentFn", "Batch", "Interrupted", "Params", "SyntheticSet", "UserError"]

Params = Any  # nested dict of float arrays, as Linen's `init` returns under "params"
Array = jax.Array | np.ndarray


@flax.struct.dataclass
class SyntheticSet:
    """The distilled data, everything the outer loop optimises.

    Attributes:
      images: float32 [S, H, W, C], whitened or normalised space, class-major order.
      label_logits: float32 [S, K]; every loss applies softmax to them once.
      step_size: float32 scalar, learning rate of the student (α).
    """

    images: Array
    label_logits: Array
    step_size: Array


@flax.struct.dataclass
class Batch:
    """Rows drawn for one optimiser step.

    Attributes:
      indices: int32 [B], rows of the data set; padding repeats a valid row.
      weights: float32 [B], weights of the mean over rows; they sum to 1 and are 0 on padding.
    """

    indices: Array
    weights: Array


AugmentFn = Callable[[Any, Array], Array]  # (draws or key, images [B,H,W,C]) -> images
