"""The backend that programs are made for: the only module that asks JAX which one it is.

A program takes other branches on a CPU than on an accelerator (form of the convolution, networks
at once, storage of the images). `assume` answers for a machine that is not there, so that a program
compiled for it takes the branches that a run there takes.
"""

import contextlib
import contextvars
import dataclasses
import os
from collections.abc import Iterator, Sequence

import jax

NAMES = ("cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine that programs are compiled for and that is not there.

    Attributes:
      name: one of `NAMES`.
      devices: those of all its processes, such as the devices of a topology of
        `jax.experimental.topologies`; empty where only branches matter.
      memory_bytes: of each device; 0 if unknown.
    """

    name: str
    devices: tuple[jax.Device, ...] = ()
    memory_bytes: int = 0


_assumed: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("assumed", default=None)


@contextlib.contextmanager
def assume(name: str, devices: Sequence[jax.Device] = (), memory_bytes: int = 0) -> Iterator[None]:
    """Lets this module answer for another machine, in this thread and until the block ends.

    Build, trace and lower inside: JAX remembers what a function that is jitted already was traced
    to, and does not know of this answer.

    Args:
      name: one of `NAMES`.
      devices: see `Machine`.
      memory_bytes: see `Machine`.

    Raises:
      ValueError: unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"the backend must be one of {NAMES}, not {name!r}")
    token = _assumed.set(Machine(name, tuple(devices), memory_bytes))
    try:
        yield
    finally:
        _assumed.reset(token)


def is_cpu() -> bool:
    """Whether programs run on the cores and in the memory of the host."""
    machine = _assumed.get()
    return (machine.name if machine else jax.default_backend()) == "cpu"


def devices() -> Sequence[jax.Device]:
    """The devices of all processes, at least one."""
    machine = _assumed.get()
    return (machine.devices if machine else ()) or jax.devices()


def local_devices(process_index: int | None = None) -> list[jax.Device]:
    """The devices of one process, by default this one; at least one."""
    machine = _assumed.get()
    if not machine or not machine.devices:
        return jax.local_devices(process_index=process_index)
    wanted = process_index or 0
    return [device for device in machine.devices if device.process_index == wanted]


def device_memory() -> int | None:
    """Bytes free on the first device of this process; None if it has no memory of its own."""
    machine = _assumed.get()
    if machine:
        return machine.memory_bytes or None
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def list_resources() -> dict[str, int]:
    """What decides how much this machine gets done: its cores, and accelerators if it has any."""
    return {"num_cores": count_cores(), "num_devices": 0 if is_cpu() else len(devices())}


def count_cores() -> int:
    """Cores that this process may use; all of the machine where the system cannot say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
