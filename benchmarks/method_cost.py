"""What every method of one cell costs, in FLOP of layers, as the program's own plan counts it.

    python benchmarks/method_cost.py --config=configs/cifar10_lt.py:if100_ipc10 \
        [--out=docs/results/cost.csv] [--methods=dam_ed,dm] [--rate=10]

Nothing is trained, and no pictures are read: the plan depends on their number and shape alone,
which `--classes`, `--side`, `--channels`, `--largest` and the config's imbalance factor give (those
of CIFAR-10 if left out). `seconds_at_rate` is FLOP divided by `--rate`, in TFLOP/s: an assumption
about a machine, not a measurement. What several methods share, such as the teachers, counts for
each.
"""

import argparse
import csv
import pathlib
import runpy
import sys

import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import config as configs
from ltdd_jax.data import long_tail
from ltdd_jax.data.sources import ImageSet
from ltdd_jax.pipeline import cost
from ltdd_jax.presets import PRESETS

COLUMNS = ("method", "title", "shared_flop", "own_flop", "baselines_flop", "seconds_at_rate")


def make_sets(
    counts: tuple[int, ...], shape: tuple[int, int, int], num_test: int
) -> tuple[ImageSet, ImageSet]:
    """Black training and test images; nothing that is counted depends on the pixels."""
    names = tuple(map(str, range(len(counts))))
    train = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    test = np.arange(num_test, dtype=np.int32) % len(counts)
    return tuple(
        ImageSet(np.zeros((len(labels), *shape), np.uint8), labels, names)
        for labels in (train, test)
    )


def count(config: ConfigDict, sets: tuple[ImageSet, ImageSet], rate: float) -> dict[str, object]:
    """A record of `COLUMNS` for the method of a config.

    Args:
      config: validated.
      sets: of `make_sets`.
      rate: FLOP per second.
    """
    found = cost.estimate_cost(config, sets, "nowhere", "")
    baselines = sum(n for name, n in found.shared.items() if name.startswith(cost.BASELINES))
    shared = sum(found.shared.values()) - baselines
    return {
        "method": config.distill.method,
        "title": PRESETS[config.distill.method].title,
        "shared_flop": f"{shared:.4g}",
        "own_flop": f"{found.own:.4g}",
        "baselines_flop": f"{baselines:.4g}",
        "seconds_at_rate": f"{(shared + found.own) / rate:.0f}",
    }


def main() -> None:
    """Writes the table, or prints it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="FILE:CELL")
    parser.add_argument("--methods", default=",".join(PRESETS), help="names joined by commas")
    parser.add_argument("--rate", type=float, default=10.0, help="TFLOP/s that are assumed")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--largest", type=int, default=5000, help="images of the largest class")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help="CSV; without it, the terminal")
    arguments = parser.parse_args()
    file, _, cell = arguments.config.partition(":")
    get_config = runpy.run_path(file)["get_config"]
    shape = (arguments.side, arguments.side, arguments.channels)
    records = []
    for method in arguments.methods.split(","):
        config = get_config(f"{cell},{method}" if cell else method)
        configs.validate(config)
        counts = long_tail.long_tail_counts(
            arguments.largest, arguments.classes, config.data.imbalance_factor
        )
        sets = make_sets(tuple(counts), shape, 1000 * arguments.classes)
        records.append(count(config, sets, 1e12 * arguments.rate))
    with open(arguments.out, "w", newline="") if arguments.out else sys.stdout as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


if __name__ == "__main__":
    main()
