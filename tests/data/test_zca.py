"""Functions of the covariance: against eigenvectors in float64, and stopped in between."""

import numpy as np
import pytest

from ltdd_jax.data import zca


def _ignore(*_):
    pass


def _make_covariance(size: int, smallest: float = 1e-4) -> np.ndarray:
    """Eigenvalues from `smallest` to 100, as of natural pictures."""
    generator = np.random.default_rng(0)
    vectors = np.linalg.qr(generator.standard_normal((size, size)))[0]
    return (vectors * np.geomspace(100, smallest, size)) @ vectors.T


@pytest.mark.parametrize("eps", [0.1, 1e-6])
def test_roots_of_the_covariance(eps):
    """Breaks when eps is left out, a root is the other's, or a product is transposed."""
    covariance = _make_covariance(61)
    shifted = covariance + eps * np.eye(61)
    transform, inverse = zca.fit_matrices(covariance.copy(), eps, say=_ignore, check=_ignore)
    np.testing.assert_allclose(inverse @ inverse, shifted, atol=1e-10)
    np.testing.assert_allclose(transform @ inverse, np.eye(61), atol=1e-8)


def test_covariance_adds_up_over_blocks():
    """Breaks when a block is lost, a triangle stays empty, or the mean is left in."""
    rows = np.random.default_rng(0).random((23, 6)).astype(np.float32) + 5
    blocks = lambda: (rows[start : start + 7] for start in range(0, 23, 7))  # noqa: E731
    mean = zca.fit_mean(blocks, 23, _ignore)
    np.testing.assert_allclose(mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-12)
    covariance = zca.fit_covariance(blocks, mean, 23, say=_ignore, check=_ignore)
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64).T), rtol=1e-9)


def test_memory_is_counted_by_the_smaller_side():
    assert zca.fit_bytes(168, 12288) < 0.1e9
    assert 5e9 < zca.fit_bytes(100_000, 12288) < 10e9
    assert zca.fit_bytes(10**6, 256 * 256 * 3) > 1e12


def test_a_run_can_be_stopped_while_eigenvectors_are_computed(monkeypatch):
    """Breaks when the library keeps Python from running: Ctrl-C would wait for minutes."""
    checks, during = [], []
    eigh = np.linalg.eigh

    def watch(matrix):
        before = len(checks)
        result = eigh(matrix)
        during.append(len(checks) - before)
        return result

    monkeypatch.setattr(zca.np.linalg, "eigh", watch)
    monkeypatch.setattr(zca, "_WAIT_SECONDS", 1e-3)
    zca.fit_matrices(_make_covariance(600), 0.1, say=_ignore, check=lambda: checks.append(1))
    assert during[0] >= 3


def test_error_of_the_library_arrives():
    """Breaks when a failed decomposition is taken for a finished one."""
    with pytest.raises(np.linalg.LinAlgError):
        zca.fit_matrices(np.full((3, 3), np.nan), 0.1, say=_ignore, check=_ignore)
