"""Shared by the benchmarks: alternating repeats, the machine's peak, one JSON line."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ltdd_jax.pipeline.workspace import versions

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


def set_precision(name: str) -> str:
    """Makes products use the precision `name` of `PRECISIONS`; returns the layers' dtype."""
    jax.config.update("jax_default_matmul_precision", PRECISIONS[name])
    return "bfloat16" if name == "bfloat16" else "float32"


def time_alternating(
    functions: Mapping[str, Callable[[], None]], *, repeats: int = 5
) -> dict[str, list[float]]:
    """Seconds of every function, called in turn; one call of each before that warms up."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure_peak(size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of a float32 matrix product of `size`, the yardstick of `peak_fraction`."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    times = time_alternating({"": lambda: product(a).block_until_ready()}, repeats=repeats)[""]
    return 2 * size**3 / min(times)


def convnet_flops(*, width: int, side: int = 32, channels: int = 3, depth: int = 3) -> float:
    """Multiply-adds x 2 of one forward pass of one image through the convolutions."""
    total, inputs = 0.0, channels
    for _ in range(depth):
        total += 2 * 9 * side * side * inputs * width
        side, inputs = side // 2, width
    return total


def describe_machine() -> dict[str, str]:
    """Where the numbers come from."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "processor": _processor(),
        "threads": str(len(os.sched_getaffinity(0))),
    } | versions()


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
        return lines[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        return platform.processor()


def median(values) -> float:
    """Median in seconds."""
    return statistics.median(values)


def report(result: Mapping, *, as_json: bool) -> None:
    """Prints one JSON line, or the same as text."""
    if as_json:
        print(json.dumps(result, sort_keys=True))
        return
    for name, value in result.items():
        print(f"{name:>20}: {value}")
