"""Shared by the benchmarks: alternating repeats, the machine's peak, one JSON line.

    python benchmarks/timing.py --precision bfloat16 --json

measures the peak alone.
"""

import argparse
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


def measure_peak(dtype: str = "float32", size: int = 0, repeats: int = 5) -> float:
    """FLOP/s of a matrix product, the yardstick of `peak_fraction`; the best of `repeats`.

    Args:
      dtype: of both factors; of float32 the precision is the one that was set.
      size: of the square factors; 0 is 2048 on a CPU and 8192 elsewhere.
      repeats: measurements.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((size, size), dtype)
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


def main():
    """Measures the peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    peak = measure_peak(set_precision(args.precision), args.size)
    result = {"benchmark": "peak", "precision": args.precision, "gflops": peak / 1e9}
    report(result | describe_machine(), as_json=args.json)


if __name__ == "__main__":
    main()
