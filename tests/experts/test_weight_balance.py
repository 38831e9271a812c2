"""MaxNorm projection of the classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.experts import weight_balance
from tests.golden_files import load_golden, relative_error


@pytest.mark.golden
def test_golden_projection_keeps_the_first_threshold():
    """Breaks when norms are taken over the wrong axis or the threshold is computed anew."""
    golden = load_golden("maxnorm")
    bound = jax.jit(weight_balance.norm_threshold)(
        golden["weight_before"].T, float(golden["thresh"])
    )
    assert relative_error(bound, golden["threshold_weight"]) < 1e-5
    assert relative_error(bound, golden["threshold_weight_call2"]) < 1e-5
    for before, after in (
        (golden["weight_before"], golden["weight_after1"]),
        (golden["weight_before2"], golden["weight_after2"]),
    ):
        projected = jax.jit(weight_balance.project)(before.T, bound)
        assert relative_error(projected, after.T) < 1e-5
        assert not np.array_equal(before, after)


def test_short_columns_are_untouched_and_long_ones_get_the_bound():
    kernel = jax.random.normal(jax.random.key(0), (6, 4)) * jnp.array([[0.1, 1.0, 3.0, 0.0]])
    bound = jnp.float32(1.5)
    projected = weight_balance.project(kernel, bound)
    norms = np.linalg.norm(kernel, axis=0)
    np.testing.assert_array_equal(projected[:, norms <= bound], kernel[:, norms <= bound])
    np.testing.assert_allclose(np.linalg.norm(projected, axis=0), np.minimum(norms, bound), 1e-6)
    assert (norms > bound).any()


def test_ends_of_the_fraction():
    kernel = jax.random.normal(jax.random.key(0), (6, 4))
    norms = np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(weight_balance.norm_threshold(kernel, 0.0), norms.min(), 1e-6)
    np.testing.assert_allclose(weight_balance.norm_threshold(kernel, 1.0), norms.max(), 1e-6)


def test_vmap_over_experts_equals_a_loop():
    kernels = jax.random.normal(jax.random.key(1), (3, 6, 4))
    bounds = jax.vmap(weight_balance.norm_threshold)(kernels)
    batched = jax.vmap(weight_balance.project)(kernels, bounds)
    for kernel, bound, projected in zip(kernels, bounds, batched, strict=True):
        np.testing.assert_allclose(weight_balance.norm_threshold(kernel), bound, rtol=1e-6)
        np.testing.assert_allclose(weight_balance.project(kernel, bound), projected, rtol=1e-6)
