"""Spreading networks over devices changes nothing but where they are computed."""

import os
import socket
import subprocess
import sys

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


TWO_PROCESSES = """
import sys
import jax, numpy as np
from ltdd_jax.runtime import mesh, processes
processes.connect(sys.argv[1], 2, int(sys.argv[2]))
devices = mesh.make_mesh(6)
assert devices.size == 6 and {d.process_index for d in devices.devices.flat} == {0, 1}
assert mesh.make_mesh(5).size == 6  # padded to the same share of both
assert mesh.make_mesh(6, even=True).size == 6 and mesh.make_mesh(4, even=True).size == 4
for alone in (mesh.make_mesh(1), mesh.make_mesh(3, even=True)):
    assert {d.process_index for d in alone.devices.flat} == {int(sys.argv[2])}
numbers = np.arange(12.0, dtype=np.float32).reshape(6, 2)
split, whole, keys = (
    mesh.place(numbers, devices, split=True),
    mesh.place(numbers, devices, split=False),
    mesh.place(jax.random.split(jax.random.key(0), 6), devices, split=True),
)
assert [s.data.shape for s in split.addressable_shards] == [(1, 2)] * 3
add = mesh.spread(jax.vmap(lambda x, y, key: x + y.sum(0) + 0 * jax.random.uniform(key),
                           in_axes=(0, None, 0)), (0, None, 0), devices)
found = mesh.fetch({"sum": jax.jit(add)(split, whole, keys), "split": split})
np.testing.assert_array_equal(found["split"], numbers)
np.testing.assert_array_equal(found["sum"], numbers + numbers.sum(0))
"""


def test_two_processes_divide_the_networks():
    """Breaks when processes compute the same twice, or one cannot see what the other computed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, address, str(number)],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs


def test_group_sizes_are_even_and_fit():
    assert mesh.choose_group_size(3, 1) == 3
    assert mesh.choose_group_size(5, 1) == 3  # two groups of at most 4
    assert mesh.choose_group_size(100, 10**18) == 1
    assert mesh.round_up(5, mesh.make_mesh(4)) == 8


def test_wide_networks_take_turns_on_a_cpu():
    assert mesh.choose_lanes(64 * 8 * 8 * 32) is None
    assert mesh.choose_lanes(256 * 32 * 32 * 128) == 1
