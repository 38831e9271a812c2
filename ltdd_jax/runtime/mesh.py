"""Devices: which there are and how much fits on them."""

import jax
import psutil

_CPU_EXPERTS = 4  # beyond this a larger group gains nothing on a few cores
_DEVICE_EXPERTS = 25
_USABLE = 0.6  # of the free memory; the rest is for the data and the compiler's temporaries


def free_memory() -> int:
    """Bytes free on the first device; the machine's available memory for a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def choose_group_size(num_experts: int, expert_bytes: int) -> int:
    """How many experts to train at once: what fits, in groups of about equal size."""
    limit = _CPU_EXPERTS if jax.default_backend() == "cpu" else _DEVICE_EXPERTS
    fits = max(1, int(_USABLE * free_memory() / max(expert_bytes, 1)))
    groups = -(-num_experts // min(limit, fits, num_experts))
    return -(-num_experts // groups)


def choose_iterations_per_call(log_steps: int) -> int:
    """Outer iterations per compiled call: one on a CPU, several where a launch costs time."""
    return 1 if jax.default_backend() == "cpu" else min(10, log_steps)


def describe_devices() -> str:
    """'cpu x 1 (cpu)' or 'gpu x 8 (NVIDIA H100)'."""
    device = jax.devices()[0]
    return f"{device.platform} x {jax.device_count()} ({device.device_kind})"
