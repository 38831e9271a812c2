"""A timed slice of the CIFAR-10-LT IF 100, IPC 10 cell, projected to the whole of it.

    python benchmarks/cell.py --precision float32 [--data PICTURES.tar] [--small] [--json]

Runs the program itself (`python -m ltdd_jax.main`) with one group of experts, few epochs and few
iterations, reads the progress bars as they move and takes from each stage the time per unit after
its first call, which compiles. What the slice took beyond that (start, reading, whitening,
compilation, saving, testing) is counted once, as it is. Trajectories of the whole cell are written
beside the computing of the next epochs; waiting for a slow disk is not foreseen.

`--data` is a directory or .tar of pictures that are long-tailed already (train/<class>/... and
test/<class>/...). Without it noise with the class counts of the cell is made: rates do not depend
on what the pictures show.
"""

import argparse
import io
import itertools
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import termios
import time

import cases
import numpy as np
import timing
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = "cifar10_lt"
VARIANT = "if100_ipc10,exact"
TRAIN_IMAGES = 12406
LIMIT_MINUTES = 30.0
# Beginning of a row's title -> its name here.
_ROWS = {
    "distilled set": "evaluate distilled",
    "the set before the first iteration, at": "evaluate initial_at_baseline_rate",
    "the set before the first iteration": "evaluate initial",
    "random real images": "evaluate random_real",
    "whole training set": "evaluate full_real",
}
COMPARISONS = tuple(_ROWS.values())[1:]  # not needed for the distilled set

_BAR = re.compile(r"([^\r\n|]+?): +\d+%\|[^|]*\| (\d+)/(\d+) \[")
_IMAGES = re.compile(r"(\d+) training images")


def slice_settings(small: bool, experts: int, iterations: int) -> dict[str, object]:
    """Fields of the config that make the slice short; the rest is the cell's."""
    fields = {
        "experts.num_experts": experts,
        "experts.representation.num_epochs": 5,
        "experts.classifier.num_epochs": 3,
        "trajectory.num_iterations": iterations,
        "trajectory.representation.current_start_epoch": 2,
        "trajectory.representation.max_start_epoch": 4,
        "evaluation.num_epochs": 399,
        "evaluation.full_num_epochs": 5,
        "evaluation.baseline_rates": "(0.01,)",
        "runtime.compilation_cache": "off",
    }
    if small:
        fields |= {
            "net.width": 8,
            "experts.num_experts": 2,
            "trajectory.num_iterations": 6,
            "trajectory.representation.student_steps": 4,
            "trajectory.classifier.student_steps": 4,
            "evaluation.num_epochs": 39,
            "evaluation.full_num_epochs": 3,
        }
    return fields


def make_noise(path: pathlib.Path, largest: int, num_test: int) -> None:
    """Writes a .tar of 32x32 noise: 10 classes, the first `largest`, falling to a hundredth."""
    generator = np.random.default_rng(0)
    counts = {
        "train": [int(largest * 0.01 ** (k / 9)) for k in range(10)],
        "test": [num_test // 10] * 10,
    }
    with tarfile.open(path, "w") as archive:
        for split, of_split in counts.items():
            for label, count in enumerate(of_split):
                for number in range(count):
                    buffer = io.BytesIO()
                    pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
                    Image.fromarray(pixels).save(buffer, format="BMP")
                    member = tarfile.TarInfo(f"{split}/class{label}/{number:04d}.bmp")
                    member.size = buffer.tell()
                    buffer.seek(0)
                    archive.addfile(member, buffer)


def run_program(workdir: pathlib.Path, data: str, fields: dict[str, object]):
    """Runs the program with a terminal of its own for the progress bars.

    Returns:
      Moments: stage -> [(seconds since the start, units done)]; stage -> units of the slice; the
      wall time in seconds; what was printed.

    Raises:
      RuntimeError: the program failed; carries the end of its messages.
    """
    flags = {"data.source": "folder", "data.path": data, "data.subset": "as_is", **fields}
    command = [
        *(sys.executable, "-m", "ltdd_jax.main", f"--config={cases.CONFIGS / CONFIG}.py:{VARIANT}"),
        *(f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in flags.items())),
    ]
    # Every movement of a bar is shown at once.
    environment = os.environ | {"TQDM_MININTERVAL": "0", "TQDM_MINITERS": "1"}
    terminal, program_side = os.openpty()
    termios.tcsetwinsize(program_side, (50, 200))
    moments, units, errors = {}, {}, ""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=printed, stderr=program_side
        )
        os.close(program_side)
        unread = ""
        while chunk := _read(terminal):
            now = time.monotonic() - start
            errors = (errors + chunk)[-4000:]
            unread += chunk
            end = 0
            for found in _BAR.finditer(unread):
                stage, done, end = _name_stage(found[1]), int(found[2]), found.end()
                units[stage] = int(found[3])
                moments.setdefault(stage, []).append((now, done))
            unread = unread[end:]
        os.close(terminal)
        code = process.wait()
        wall = time.monotonic() - start
        printed.seek(0)
        text = printed.read()
    if code:
        raise RuntimeError(f"the program ended with code {code}: {errors.strip()[-600:]}")
    return moments, units, wall, text


def _name_stage(title: str) -> str:
    """The name under which a progress bar is counted."""
    title = re.sub(r"\x1b\[\w", "", title).strip()
    return next((name for start, name in _ROWS.items() if title.startswith(start)), title)


def _read(terminal: int) -> str:
    """What came from the terminal; "" at its end."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # the other side is closed
        return ""


def steady_seconds(moments: list[tuple[float, int]]) -> tuple[float, float, float]:
    """Seconds per unit after the first call (mean), and the smallest and largest of single calls.

    Raises:
      RuntimeError: fewer than two calls after the first.
    """
    calls = []  # first moment at which each number of units was reached
    for now, done in moments:
        if done > 0 and (not calls or done > calls[-1][1]):
            calls.append((now, done))
    if len(calls) < 3:
        raise RuntimeError(f"only {len(calls)} calls were seen; the slice is too short")
    pieces = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(calls)]
    mean = (calls[-1][0] - calls[0][0]) / (calls[-1][1] - calls[0][1])
    return mean, min(pieces), max(pieces)


def cell_units() -> dict[str, int]:
    """Stage -> units of the whole cell, as its progress bar counts them.

    The choice of a rate trains random images with every seed at every rate, and the whole training
    set once at every rate; as many networks at once as there are seeds.
    """
    config = cases.load_config(CONFIG, VARIANT)
    experts, evaluation = config.experts, config.evaluation
    rates = len(evaluation.baseline_rates)
    small = evaluation.num_epochs + 1
    full = (evaluation.full_num_epochs or evaluation.num_epochs) + 1
    return {
        "representation experts": experts.num_experts * experts.representation.num_epochs,
        "classifier experts": experts.num_experts * experts.classifier.num_epochs,
        "distill": config.trajectory.num_iterations,
        "evaluate distilled": small,
        "evaluate initial": small,
        "evaluate initial_at_baseline_rate": small,
        "evaluate random_real": small * (1 + rates),
        "evaluate full_real": full * (1 + -(-rates // evaluation.num_seeds)),
    }


def project(rates: dict[str, float], units: dict[str, int], wall: float) -> dict:
    """Minutes of the whole cell by stage, from seconds per unit and units of the slice."""
    once = max(0.0, wall - sum(rates[stage] * units[stage] for stage in rates))
    minutes = {stage: rates[stage] * count / 60 for stage, count in cell_units().items()}
    minutes["start, compilation, saving, testing"] = once / 60
    total = sum(minutes.values())
    without = total - sum(minutes[stage] for stage in COMPARISONS)
    return {
        "minutes": minutes,
        "total_minutes": total,
        "minutes_without_comparisons": without,
        "under_30_minutes": total < LIMIT_MINUTES,
        "under_30_minutes_without_comparisons": without < LIMIT_MINUTES,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="float32", choices=timing.PRECISIONS)
    parser.add_argument("--form", default="auto")
    parser.add_argument("--data", default="", help="long-tailed pictures; noise if not given")
    parser.add_argument("--experts", type=int, default=25, help="trained together")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--small", action="store_true", help="try the script; not the cell")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    fields = {
        "runtime.precision": args.precision,
        "runtime.convolution": args.form,
        **slice_settings(args.small, args.experts, args.iterations),
    }
    with tempfile.TemporaryDirectory() as folder:
        data = str(pathlib.Path(args.data).resolve()) if args.data else f"{folder}/noise.tar"
        if not args.data:
            make_noise(pathlib.Path(data), *((300, 500) if args.small else (5000, 10_000)))
        moments, units, wall, text = run_program(pathlib.Path(folder) / "run", data, fields)
    steady = {stage: steady_seconds(moments.get(stage, [])) for stage in cell_units()}
    images = int(_IMAGES.search(text)[1])
    result = {
        "benchmark": "cell",
        "precision": args.precision,
        "form": fields["runtime.convolution"],
        "pictures": "given" if args.data else "noise",
        "training_images": images,
        "settings": fields,
        "is_the_cell": not args.small and images == TRAIN_IMAGES,
        "slice_seconds": wall,
        "seconds_per_unit": {stage: values[0] for stage, values in steady.items()},
        "seconds_per_unit_range": {stage: values[1:] for stage, values in steady.items()},
        "units": cell_units(),
        **project({stage: values[0] for stage, values in steady.items()}, units, wall),
        **timing.describe_machine(),
    }
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
