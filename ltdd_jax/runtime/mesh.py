"""Devices: which there are, how much fits on them, and how networks are spread over them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import psutil
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ltdd_jax import backend

AXIS = "network"  # experts, evaluation networks, or expert pairs of an outer iteration

_CPU_EXPERTS = 4  # beyond this a larger group gains nothing on a few cores
_DEVICE_EXPERTS = 25
_BUSY_VALUES = 2**20  # a feature map of this size keeps a few CPU cores busy by itself
_USABLE = 0.6  # of the free memory; the rest is for the data and the compiler's temporaries


def make_mesh(num_networks: int, *, even: bool = False) -> Mesh:
    """Devices in one axis, no more than there are networks to spread.

    Several processes give the same number of devices each. Where there are fewer networks than
    processes, or `even` cannot be had with all of them, every process computes the same on its
    own devices.

    Args:
      num_networks: at least 1.
      even: whether the number of devices must divide the number of networks; otherwise the
        caller pads, see `round_up`.
    """
    own = backend.local_devices()
    groups = [own]
    if num_networks >= jax.process_count() > 1:
        groups = [backend.local_devices(process_index=i) for i in range(jax.process_count())]
    share = _share(num_networks, len(groups), min(map(len, groups)), even)
    if share is None:
        groups, share = [own], _share(num_networks, 1, len(own), even)
    devices = [device for group in groups for device in group[:share]]
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def _share(num_networks, num_processes, num_local, even):
    """Devices of each process: as many as there is work for; None if that cannot be even."""
    shares = [
        n
        for n in range(1, num_local + 1)
        if (n - 1) * num_processes < num_networks
        and not (even and num_networks % (n * num_processes))
    ]
    return max(shares, default=None)


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
    """Puts arrays on the devices, split along their leading axis or whole on each.

    With several processes each of them must have the whole array and give the same.
    """
    if mesh.size == 1:
        return jax.device_put(tree, mesh.devices.item())
    sharding = NamedSharding(mesh, P(AXIS) if split else P())
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)

    def share(array):
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            bits = share(jax.random.key_data(array))
            return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(array))
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(share, tree)


def start_fetch(tree: Any) -> Any:
    """The same arrays, on their way to this process's memory while the devices compute on.

    All processes must call it at the same point; `fetch` waits for the result.
    """
    leaves, structure = jax.tree.flatten(tree)
    if any(not x.is_fully_addressable and not x.is_fully_replicated for x in leaves):
        leaves = _replicate(leaves[0].sharding.mesh)(leaves)
        if backend.is_cpu():
            # Gloo tells messages apart by their order: no second collective beside this one.
            jax.block_until_ready(leaves)
    for leaf in leaves:
        leaf.copy_to_host_async()
    return jax.tree.unflatten(structure, leaves)


def fetch(tree: Any) -> Any:
    """The arrays whole, as NumPy arrays, wherever their parts are; on every process."""
    return jax.tree.map(np.asarray, start_fetch(tree))


@functools.cache
def _replicate(mesh):
    return jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, P()))


def round_up(count: int, mesh: Mesh) -> int:
    """The next multiple of the number of devices."""
    return -(-count // mesh.size) * mesh.size


def free_memory() -> int:
    """Bytes free on the first device; the machine's available memory for a CPU."""
    found = backend.device_memory()
    return psutil.virtual_memory().available if found is None else found


def choose_group_size(num_experts: int, expert_bytes: int) -> int:
    """How many experts to train at once: what fits, in groups of about equal size."""
    # The devices of a CPU are parts of one machine, others have their own memory and units.
    on_cpu = backend.is_cpu()
    places = jax.process_count() if on_cpu else len(backend.devices())
    limit = places * (_CPU_EXPERTS if on_cpu else _DEVICE_EXPERTS)
    fits = places * max(1, int(_USABLE * free_memory() / max(expert_bytes, 1)))
    groups = -(-num_experts // min(limit, fits, num_experts))
    return -(-num_experts // groups)


def choose_lanes(step_values: int) -> int | None:
    """Networks of a group computed at once on a device, for `training.vectorize`; None is all.

    Args:
      step_values: numbers in the largest feature map of one network's batch.
    """
    if not backend.is_cpu() or step_values < _BUSY_VALUES:
        return None
    return 1


def choose_iterations_per_call(log_steps: int) -> int:
    """Outer iterations per compiled call: one on a CPU, several where a launch costs time."""
    return 1 if backend.is_cpu() else min(10, log_steps)


def describe_devices() -> str:
    """'1 x cpu', '8 x NVIDIA H100' or '8 x NVIDIA H100 in 2 processes'."""
    where = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{len(backend.devices())} x {backend.devices()[0].device_kind}{where}"
