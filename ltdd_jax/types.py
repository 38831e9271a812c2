"""Types that every part of the package shares."""

import signal
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import numpy as np

Params = Any  # nested dict of float arrays, as Linen's `init` returns under "params"
Array = jax.Array | np.ndarray


class UserError(Exception):
    """A problem the user can mend: one sentence that names the field or file and the remedy.

    `main` prints the message without a traceback and exits with code 2.
    """


class Interrupted(Exception):
    """The run stopped early at a safe point; the same command continues it.

    Attributes:
      exit_code: 128 + signal number, 130 for Ctrl-C and 143 for SIGTERM.
    """

    def __init__(self, signal_number: int):
        self.exit_code = 128 + signal_number
        super().__init__(signal.Signals(signal_number).name)


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
