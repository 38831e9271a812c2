"""Fitting ZCA whitening: T = (Cov + eps)^(-1/2) and its inverse, for few or many rows.

With fewer rows N than half the features D the eigenvectors come from the N x N Gram matrix and are
kept as they are: T = eps^(-1/2) I + U diag((s + eps)^(-1/2) - eps^(-1/2)) Uᵀ, where directions that
are not in the data have s = 0. Else T is a D x D matrix, of which one function of the covariance
is taken. All in float64.

Python answers signals between the steps: no call holds on to the interpreter for long.
"""

import threading
from collections.abc import Callable, Iterable

import numpy as np
import scipy.linalg
import scipy.special

from ltdd_jax.data.request import throttle

_EIGH_FEATURES = 1024  # covariances up to this size are decomposed, which takes below a second
_BASE_ROWS = 1024  # matrices up to this size are inverted in one call
_TOLERANCE = 1e-11  # of the rational approximation; the result is kept in float32
_MAX_CONDITION = 1e8  # above it eigenvectors are computed, however long it takes
_MATRICES = 6  # square float64 matrices at the same time while a function of one is computed
_WAIT_SECONDS = 0.2

Rows = Callable[[], Iterable[np.ndarray]]  # blocks of rows, float32 [B, D], afresh at every call


def fit_bytes(num_rows: int, num_features: int) -> int:
    """Memory that fitting takes: of the Gram or covariance matrix and its functions."""
    side = min(num_rows, num_features)
    if is_low_rank(num_rows, num_features):
        return 8 * (_MATRICES * side**2 + 3 * side * num_features)
    return 8 * _MATRICES * num_features**2


def is_low_rank(num_rows: int, num_features: int) -> bool:
    """Whether eigenvectors take less memory and time than a D x D matrix."""
    return 2 * num_rows <= num_features


def fit_mean(rows: Rows, num_rows: int, check: Callable[[], None]) -> np.ndarray:
    """Mean of the rows, float64 [D]."""
    total = 0.0
    for block in rows():
        check()
        total = total + block.sum(axis=0, dtype=np.float64)
    return total / num_rows


def fit_basis(
    rows: Rows, mean: np.ndarray, num_rows: int, check: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Directions and variances of few rows.

    Args:
      rows: blocks of the rows, N together.
      mean: float64 [D].
      num_rows: N, at least 2 and less than D.
      check: called between the steps; may raise to stop.

    Returns:
      Orthonormal columns float64 [D, R] with R < N, and their variances float64 [R] > 0.
    """
    centred = np.empty((num_rows, len(mean)))
    start = 0
    for block in rows():
        check()
        centred[start : start + len(block)] = block - mean
        start += len(block)
    gram = centred @ centred.T
    gram /= num_rows - 1
    values, vectors = _in_thread(np.linalg.eigh, gram, check)
    # What rounding makes of a variance of zero; its direction would be noise.
    kept = values > max(values[-1], 0.0) * num_rows * np.finfo(np.float64).eps
    check()
    basis = centred.T @ (vectors[:, kept] / np.sqrt(values[kept] * (num_rows - 1)))
    return basis, values[kept]


def fit_covariance(
    rows: Rows,
    mean: np.ndarray,
    num_rows: int,
    *,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> np.ndarray:
    """Covariance of the rows over N - 1, float64 [D, D]; adds up block by block."""
    tell = throttle(say)
    upper = np.zeros((len(mean), len(mean)), order="F")
    done = 0
    for block in rows():
        check()
        centred = (block - mean).T  # [D, B] in Fortran order, as BLAS wants it
        upper = scipy.linalg.blas.dsyrk(1.0, centred, beta=1.0, c=upper, overwrite_c=1)
        done += len(block)
        tell(f"whitening: covariance of {done} of {num_rows} images")
    for column in range(len(upper)):
        upper[column + 1 :, column] = upper[column, column + 1 :]
    upper /= num_rows - 1
    return upper


def fit_matrices(
    covariance: np.ndarray, eps: float, *, say: Callable[[str], None], check: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """(Cov + eps)^(-1/2) and (Cov + eps)^(1/2), float64 [D, D].

    Large matrices go through a rational function, the sum of inverses (Cov + eps + σ_j)^(-1) with
    the nodes of Hale, Higham and Trefethen (SIAM J. Numer. Anal. 46, 2008): matrix products only,
    so several times as fast as eigenvectors on many cores, and interruptible.

    Args:
      covariance: float64 [D, D], symmetric; it is overwritten.
      eps: > 0, added to the eigenvalues.
      say: called with a sentence every few seconds.
      check: called often; may raise to stop.
    """
    largest = float(np.abs(covariance).sum(axis=0).max()) + eps  # at least the largest eigenvalue
    if len(covariance) <= _EIGH_FEATURES or largest / eps > _MAX_CONDITION:
        values, vectors = _in_thread(np.linalg.eigh, covariance, check)
        scale = np.sqrt(np.maximum(values, 0.0) + eps)  # rounding leaves zeros slightly negative
        return (vectors / scale) @ vectors.T, (vectors * scale) @ vectors.T
    diagonal = np.einsum("ii->i", covariance)  # a view
    diagonal += eps
    shifts, weights = find_nodes(eps, largest)
    transform = np.zeros_like(covariance)
    tell = throttle(say)
    for number, (shift, weight) in enumerate(zip(shifts, weights, strict=True)):
        tell(f"whitening: inverse square root, step {number + 1} of {len(shifts)}")
        shifted = covariance.copy()
        np.einsum("ii->i", shifted)[:] += shift
        _invert(shifted, check)
        shifted *= weight
        transform += shifted
    del shifted
    check()
    inverse = covariance @ transform
    return transform, inverse


def find_nodes(smallest: float, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Shifts σ and weights w with Σ w_j / (x + σ_j) = x^(-1/2) on [smallest, largest].

    x^(-1/2) = 2/π ∫ ds / (x + s²) over the positive axis; with s = √smallest · sc(t) the integrand
    is periodic and analytic in t, and the midpoint rule converges geometrically.
    """
    complement = smallest / largest
    quarter = scipy.special.ellipkm1(complement)
    decay = 2 * np.pi**2 / (np.log(1 / complement) + 3)
    num = int(np.ceil(np.log(1 / _TOLERANCE) / decay)) + 1
    points = (np.arange(num) + 0.5) * quarter / num
    sn, cn, dn, _ = scipy.special.ellipj(points, 1 - complement)
    shifts = smallest * (sn / cn) ** 2
    weights = 2 / np.pi * quarter / num * np.sqrt(smallest) * dn / cn**2
    return shifts, weights


def _invert(matrix: np.ndarray, check: Callable[[], None]) -> None:
    """Inverts a symmetric positive definite matrix in place, by halves (Schur complements)."""
    check()
    half = len(matrix) // 2
    if len(matrix) <= _BASE_ROWS:
        matrix[:] = np.linalg.inv(matrix)
        return
    first, second = matrix[:half, :half], matrix[half:, half:]
    border = matrix[half:, :half].copy()
    _invert(first, check)
    product = border @ first
    check()
    second -= product @ border.T
    _invert(second, check)
    corner = second @ product
    check()
    first += product.T @ corner
    matrix[half:, :half] = -corner
    matrix[:half, half:] = -corner.T


def _in_thread(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    matrix: np.ndarray,
    check: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
    """`function(matrix)`, while this thread goes on to answer signals and to call `check`."""
    results: list = []

    def work() -> None:
        try:
            results.append(function(matrix))
        except Exception as error:  # raised again where it is waited for
            results.append(error)

    thread = threading.Thread(target=work, daemon=True)  # a stopped run does not wait for it
    thread.start()
    while thread.is_alive():
        thread.join(_WAIT_SECONDS)
        check()
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]
