"""Spreading networks over devices changes nothing but where they are computed."""

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import nets, training
from ltdd_jax.experts import train as experts
from ltdd_jax.runtime import mesh

RECIPE = experts.Recipe(
    num_epochs=1, batch_size=4, learning_rate=0.1, momentum=0.5, weight_decay=0.01,
    rho=0.05, alpha=0.3, adaptive=True,
)  # fmt: skip


def test_experts_on_eight_devices_equal_one():
    """Breaks when a device sees another's key, data or state."""
    assert jax.device_count() == 8
    network = nets.build("convnet", image_shape=(8, 8, 1), num_classes=3, width=2, depth=1)
    expert = experts.make_representation_expert(network, RECIPE, lambda _, x: x, 10)
    keys = jax.random.split(jax.random.key(0), 8)
    state, frozen = jax.vmap(expert.init, in_axes=(0, None))(keys, {})
    data = (
        jax.random.normal(jax.random.key(1), (10, 8, 8, 1)),
        jnp.arange(10, dtype=jnp.int32) % 3,
    )
    axes = (0, None, 0, 0, None)
    results = []
    for num_devices in (1, 8):
        devices = mesh.make_mesh(num_devices)
        epoch = jax.jit(mesh.spread(training.vectorize(expert.run_epoch, axes), axes, devices))
        arguments = (keys, jnp.int32(0), state, frozen, data)
        placed = [
            mesh.place(a, devices, split=axis == 0) for a, axis in zip(arguments, axes, strict=True)
        ]
        out = epoch(*placed)
        if num_devices > 1:
            assert len(jax.tree.leaves(out)[0].sharding.device_set) == 8
        results.append(out)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_group_sizes_are_even_and_fit():
    assert mesh.choose_group_size(3, 1) == 3
    assert mesh.choose_group_size(5, 1) == 3  # two groups of at most 4
    assert mesh.choose_group_size(100, 10**18) == 1
    assert mesh.round_up(5, mesh.make_mesh(4)) == 8


def test_wide_networks_take_turns_on_a_cpu():
    assert mesh.choose_lanes(64 * 8 * 8 * 32) is None
    assert mesh.choose_lanes(256 * 32 * 32 * 128) == 1
