"""Methods without experts on a network with batch norms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets, training
from ltdd_jax.distill import network_steps
from tests.distill import tasks


@pytest.fixture(scope="module")
def network():
    return nets.build("convnet_bn", image_shape=(8, 8, 1), num_classes=3, width=4, depth=1)


def test_statistics_follow_the_batch_and_are_neither_decayed_nor_descended(network):
    """A tenth of the way, written out. Breaks when padding is seen, or the optimiser moves them."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
    params = jax.jit(network.init)(jax.random.key(0))
    tx = training.make_optimizer(momentum=0.9, weight_decay=0.5)
    opt_state = network_steps.init_optimizer(tx, params)
    weights = jnp.array([0.5, 0.5, 0, 0], jnp.float32)
    (moved, _), _ = jax.jit(
        lambda carry: network_steps.descend(
            network, tx, 0.1, carry, images, weights, lambda logits: logits[:, 0]
        )
    )((params, opt_state))
    _, entering = network.observe(params, images[:2])
    name = next(name for name, kind in network.observed.items() if kind == "norm")
    means = np.asarray(entering[name], np.float64).mean(axis=(0, 1, 2))
    found = moved["statistics"]["block_0"]["norm"]["mean"]
    np.testing.assert_allclose(found, 0.1 * means, atol=1e-5)
    assert np.abs(moved["classifier"]["kernel"] - params["classifier"]["kernel"]).max() > 1e-3


def test_a_network_settles_on_some_real_images_of_each_class(network):
    """Breaks when a class gives more than its share, or its padding counts."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 8, 8, 1)).astype(np.float32)
    params = jax.jit(network.init)(jax.random.key(0))
    rows = np.stack([np.arange(20), np.resize([30, 31], 20)]).astype(np.int32)
    weights = np.stack([np.full(20, 1 / 20), (np.arange(20) < 2) / 2]).astype(np.float32)
    found = network_steps.settle(network, params, jnp.asarray(images), rows, weights)
    _, entering = network.observe(params, images[[*range(16), 30, 31]])
    maps = np.asarray(next(entering[n] for n, kind in network.observed.items() if kind == "norm"))
    means = np.float64(maps).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(
        found["statistics"]["block_0"]["norm"]["mean"], 0.1 * means, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsa", "dm", "idm", "dream"])
def test_methods_run_on_batch_norms(network, name):
    task = dataclasses.replace(tasks.make_task(), network=network)
    method = tasks.make_method(name, task)
    constants = {key: jnp.asarray(x) for key, x in method.constants().items()}
    state, step = method.init(jax.random.key(0), method.start()), jax.jit(method.step)
    for i in range(2):
        state, metrics = step(state, method.read(i), **constants)
        assert np.isfinite(float(metrics["loss"]))
