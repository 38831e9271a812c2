"""Fitting ZCA whitening: T = (Cov + eps)^(-1/2) and its inverse, for few or many rows.

With fewer rows N than half the features D the eigenvectors come from the N x N Gram matrix and are
kept as they are: T = eps^(-1/2) I + U diag((s + eps)^(-1/2) - eps^(-1/2)) Uᵀ, where directions that
are not in the data have s = 0. Else T is a D x D matrix, of which one function of the covariance
is taken. All in float64.

Signals are answered between the steps, which are short or run in a thread of their own.
"""

import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import scipy.linalg

from ltdd_jax.data.request import throttle

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
    total: np.ndarray | float = 0.0
    for block in rows():
        check()
        total = total + block.sum(axis=0, dtype=np.float64)
    return np.asarray(total / num_rows)


def fit_basis(
    rows: Rows,
    mean: np.ndarray,
    num_rows: int,
    *,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Directions and variances of few rows.

    Args:
      rows: blocks of the rows, N together.
      mean: float64 [D].
      num_rows: N, at least 2 and less than D.
      say: called with a sentence every few seconds.
      check: called often; may raise to stop.

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
    say_while = f"whitening: eigenvectors of the products of {num_rows} images"
    values, vectors = _in_thread(np.linalg.eigh, gram, say, check, say_while)
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

    Args:
      covariance: float64 [D, D], symmetric; it is overwritten.
      eps: > 0, added to the eigenvalues.
      say: called with a sentence every few seconds.
      check: called often; may raise to stop.
    """

    def take_roots(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(matrix)
        scale = np.sqrt(np.maximum(values, 0.0) + eps)  # rounding leaves zeros slightly negative
        return (vectors / scale) @ vectors.T, (vectors * scale) @ vectors.T

    size = len(covariance)
    say_while = f"whitening: eigenvectors of a {size} x {size} covariance"
    return _in_thread(take_roots, covariance, say, check, say_while)


def _in_thread(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    matrix: np.ndarray,
    say: Callable[[str], None],
    check: Callable[[], None],
    say_while: str,
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
    start, tell = time.monotonic(), throttle(say)
    while thread.is_alive():
        thread.join(_WAIT_SECONDS)
        check()
        tell(f"{say_while}, {time.monotonic() - start:.0f} s so far")
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]
