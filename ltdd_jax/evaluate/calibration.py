"""Calibration of soft labels after distillation: ADSA (NeurIPS 2025).

A teacher of a long-tailed set leans to its head. One number for the whole set, tau, takes out as
much of the class prior as makes the labels equally sure of every class:

    p_tau(y|x) = softmax(f(x) - tau log prior)_y,   tau* = argmin std_c mean_{x in c} p_tau(c|x)
"""

import numpy as np
from scipy import special

_RANGE, _STEP = 3.0, 0.01
_GOLDEN = (5**0.5 - 1) / 2
_TOLERANCE = 1e-7


def shift_logits(logits: np.ndarray, prior: np.ndarray, tau: float) -> np.ndarray:
    """f - tau log prior, of the logits' dtype.

    Args:
      logits: [..., K].
      prior: [K], shares of the classes in the real training set, above 0.
      tau: 0 changes nothing.
    """
    return (logits - tau * np.log(prior)).astype(logits.dtype)


def measure_spread(logits: np.ndarray, labels: np.ndarray, prior: np.ndarray, tau: float) -> float:
    """Standard deviation over the classes of the mean share that their images give them.

    Args:
      logits: [S, K], of the teacher.
      labels: int [S], the class of each image; a class without images is left out.
      prior: [K].
      tau: as in `shift_logits`.
    """
    shares = special.softmax(shift_logits(logits.astype(np.float64), prior, tau), axis=1)
    own = shares[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=len(prior))
    sums = np.bincount(labels, own, minlength=len(prior))
    return float(np.std(sums[counts > 0] / counts[counts > 0]))


def find_tau(logits: np.ndarray, labels: np.ndarray, prior: np.ndarray) -> float:
    """tau* in [0, 3]: the best of a scan by 0.01, then a golden section search around it.

    Args:
      logits: [S, K], of the teacher on the clean images.
      labels: int [S].
      prior: [K].

    Returns:
      The smallest of equally good ones, so that a balanced prior gives 0.
    """

    def spread(tau):
        return measure_spread(logits, labels, prior, tau)

    scan = np.arange(round(_RANGE / _STEP) + 1) * _STEP
    values = [spread(tau) for tau in scan]
    best = float(scan[np.argmin(np.round(values, 12))])
    low, high = max(best - _STEP, 0.0), min(best + _STEP, _RANGE)
    while high - low > _TOLERANCE:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if spread(left) <= spread(right):
            high = right
        else:
            low = left
    middle = (low + high) / 2
    return middle if spread(middle) < spread(best) - 1e-12 else best
