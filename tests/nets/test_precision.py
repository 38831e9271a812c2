"""bfloat16 arithmetic stays near float32 and leaves parameters and results in float32."""

import jax
import jax.numpy as jnp
import pytest

from ltdd_jax import nets
from tests.golden_files import relative_error


@pytest.mark.slow
def test_bfloat16_is_close_and_its_results_are_float32():
    shape = {"image_shape": (16, 16, 3), "num_classes": 5, "width": 8, "depth": 2}
    exact = nets.build("convnet", **shape)
    narrow = nets.build("convnet", **shape, dtype="bfloat16")
    params = exact.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (6, 16, 16, 3))

    def loss(network, params):
        return jnp.square(network.apply(params, images)).sum()

    gradients = [jax.grad(lambda p, n=n: loss(n, p))(params) for n in (exact, narrow)]
    assert narrow.apply(params, images).dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients[1]))
    error = relative_error(narrow.apply(params, images), exact.apply(params, images))
    assert 1e-4 < error < 3e-2
    kernels = [g["block_0"]["conv"]["kernel"] for g in gradients]
    assert relative_error(kernels[1], kernels[0]) < 0.1
