"""What saving costs: seconds per outer iteration with checkpoints on and off, alternating.

    python benchmarks/checkpoint.py [--every 10] [--iterations 60] [--rounds 5] [--json]

Takes the digits config with its experts reduced, distils with a checkpoint every `--every`
iterations and without any but the last, and compares the time per iteration from the log of steps
(the first of each run compiles and is left out).
"""

import argparse
import contextlib
import io
import itertools
import json
import pathlib
import platform
import shutil
import statistics
import tempfile
import time

import cases
import jax

from ltdd_jax import pipeline
from ltdd_jax.pipeline import distill


def make_config(iterations: int, every: int, width: int):
    """The digits config with few experts; checkpoints by number only."""
    config = cases.load_config("digits_lt", "smoke")
    config.net.width = width
    config.trajectory.num_iterations = iterations
    config.runtime.checkpoint_steps = every
    config.runtime.checkpoint_minutes = 0.0
    config.runtime.log_steps = iterations
    return config


def time_iterations(config, workdir: pathlib.Path) -> list[float]:
    """Seconds between consecutive iterations of one distillation."""
    moments = []
    note = distill._note

    def noting(*arguments):
        moments.append(time.perf_counter())
        note(*arguments)

    for name in ("distill", "synthetic"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    distill._note = noting
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pipeline.run(config, str(workdir), "distill")
    finally:
        distill._note = note
    return [after - before for before, after in itertools.pairwise(moments[1:])]


def measure(iterations: int, every: int, rounds: int, width: int) -> dict:
    """Medians over alternating runs."""
    on, off = make_config(iterations, every, width), make_config(iterations, iterations, width)
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory) / "run"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pipeline.run(on, str(workdir), "experts")
        means = {"on": [], "off": []}
        for _ in range(rounds):
            for name, config in (("on", on), ("off", off)):
                means[name].append(statistics.mean(time_iterations(config, workdir)))
    medians = {name: statistics.median(values) for name, values in means.items()}
    return {
        "benchmark": "checkpoint",
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "width": width,
        "iterations": iterations,
        "every": every,
        "rounds": rounds,
        "seconds_on": medians["on"],
        "seconds_off": medians["off"],
        "spread_on": [min(means["on"]), max(means["on"])],
        "spread_off": [min(means["off"]), max(means["off"])],
        "seconds_per_save": (medians["on"] - medians["off"]) * every,
        "overhead_percent": 100 * (medians["on"] / medians["off"] - 1),
    }


def main() -> None:
    """Prints a sentence, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.iterations, arguments.every, arguments.rounds, arguments.width)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['seconds_on'] * 1e3:.1f} ms per iteration with a checkpoint every "
            f"{result['every']}, {result['seconds_off'] * 1e3:.1f} ms without "
            f"({result['seconds_per_save'] * 1e3:+.0f} ms per checkpoint), {result['rounds']} "
            f"alternating runs of {result['iterations']} on {result['device']}"
        )


if __name__ == "__main__":
    main()
