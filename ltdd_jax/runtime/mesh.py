"""Devices: which there are, how much fits on them, and how networks are spread over them."""

from collections.abc import Callable
from typing import Any

import jax
import psutil
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "network"  # experts, evaluation networks, or expert pairs of an outer iteration

_CPU_EXPERTS = 4  # beyond this a larger group gains nothing on a few cores
_DEVICE_EXPERTS = 25
_BUSY_VALUES = 2**20  # a feature map of this size keeps a few CPU cores busy by itself
_USABLE = 0.6  # of the free memory; the rest is for the data and the compiler's temporaries


def make_mesh(num_networks: int) -> Mesh:
    """The devices of this process in one axis, no more than there are networks to spread.

    Several processes compute the same and agree bit for bit; only one of them writes.
    """
    devices = jax.local_devices()[:num_networks]
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def spread(function: Callable, in_axes: tuple[int | None, ...], mesh: Mesh) -> Callable:
    """Splits the networks over the devices; each computes its share without the others.

    Args:
      function: over a leading axis of networks, such as a `jax.vmap`; it treats them alike.
      in_axes: for each argument 0 (its leaves have the leading axis, split over the mesh) or
        None (every device has all of it).
      mesh: from `make_mesh`; the leading axis must be a multiple of its size.

    Returns:
      A function with the same results, all of which have the leading axis.
    """
    if mesh.size == 1:
        return function
    specs = tuple(P(AXIS) if axis == 0 else P() for axis in in_axes)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)


def place(tree: Any, mesh: Mesh, *, split: bool) -> Any:
    """Puts host arrays on the devices, split along their leading axis or whole on each."""
    if mesh.size == 1:
        return jax.device_put(tree, mesh.devices.item())
    return jax.device_put(tree, NamedSharding(mesh, P(AXIS) if split else P()))


def round_up(count: int, mesh: Mesh) -> int:
    """The next multiple of the number of devices."""
    return -(-count // mesh.size) * mesh.size


def largest_share(count: int) -> int:
    """The most devices over which `count` networks can be spread evenly."""
    return max(n for n in range(1, jax.local_device_count() + 1) if count % n == 0)


def free_memory() -> int:
    """Bytes free on the first device; the machine's available memory for a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def choose_group_size(num_experts: int, expert_bytes: int) -> int:
    """How many experts to train at once: what fits, in groups of about equal size."""
    on_cpu = jax.default_backend() == "cpu"
    limit = _CPU_EXPERTS if on_cpu else _DEVICE_EXPERTS * jax.local_device_count()
    fits = max(1, int(_USABLE * free_memory() / max(expert_bytes, 1)))
    if not on_cpu:
        fits *= jax.local_device_count()
    groups = -(-num_experts // min(limit, fits, num_experts))
    return -(-num_experts // groups)


def choose_lanes(step_values: int) -> int | None:
    """Networks of a group computed at once on a device, for `training.vectorize`; None is all.

    Args:
      step_values: numbers in the largest feature map of one network's batch.
    """
    if jax.default_backend() != "cpu" or step_values < _BUSY_VALUES:
        return None
    return 1


def choose_iterations_per_call(log_steps: int) -> int:
    """Outer iterations per compiled call: one on a CPU, several where a launch costs time."""
    return 1 if jax.default_backend() == "cpu" else min(10, log_steps)


def describe_devices() -> str:
    """'cpu x 1 (cpu)' or 'gpu x 8 (NVIDIA H100)'."""
    device = jax.devices()[0]
    return f"{device.platform} x {jax.device_count()} ({device.device_kind})"
