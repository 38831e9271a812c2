"""Finished runs that never ran, and rows as they might stand in docs/results/results.csv."""

import json
import pathlib
import runpy

import numpy as np

from ltdd_jax import config as configs
from tests.scripts import load_script

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = "python -m ltdd_jax.main --config=configs/digits_lt.py"


measured = load_script("measured")


def make_config(file: str = "digits_lt", argument: str = "") -> dict:
    """The settings of a packaged config, nested."""
    path = ROOT / "configs" / f"{file}.py"
    return runpy.run_path(str(path))["get_config"](argument).to_dict()


def make_result(mean: float, **more) -> dict:
    """What a report says of a row."""
    return {
        "mean": mean, "std": 0.25, "many": mean + 5, "medium": mean, "few": mean - 5,
        "per_class": [mean + 5, mean - 5], "per_seed": [mean] * 5, "block": "i", "labels": "S1",
        "num_epochs": 201, "rate": 0.03,
        "stored_bytes": {"images": 1000, "labels": 80, "teacher": 0},
    } | more  # fmt: skip


def make_report(config: dict | None = None, num_classes: int = 2, **results) -> dict:
    """A report with a distilled set, its start, random images, and rows given by name."""
    config = config or make_config()
    report = {
        "config": config,
        "config_hash": configs.identity_hash({"set": 1}),
        "class_names": list("abcdefghijkl"[:num_classes]),
        "train_counts": [100] * (num_classes - 1) + [5],
        "experts": {"representation": {}},
        "teachers": {},
        "seconds": {"experts": 30.0, "distill": 12.5, "evaluate": 9.0},
        "results": {
            "distilled": make_result(70.0, ior=20.0),
            "initial": make_result(60.0),
            "random_real": make_result(50.0, labels="H", rate=0.1),
            **results,
        },
    }
    for result in report["results"].values():
        ends = result["per_class"]
        result["per_class"] = [ends[0]] * (num_classes - 1) + ends[-1:]
    return report


def write_run(workdir: pathlib.Path, report: dict | None = None, name: str = "") -> pathlib.Path:
    """Writes what a finished set leaves; returns the directory of the set."""
    home = workdir / "sets" / name if name else workdir
    (home / "synthetic").mkdir(parents=True)
    (home / "report.json").write_text(json.dumps(report or make_report()))
    (home / "set.json").write_text(json.dumps({"identity": {"set": 1}}))
    return home


def write_images(home: pathlib.Path, pixels: np.ndarray, initial: np.ndarray) -> None:
    """The images of a set of two classes and of its start, uint8 [N, H, W, C]."""
    labels = np.arange(len(pixels)) % 2
    common = {"labels": np.sort(labels), "class_names": np.asarray(["a", "b"])}
    np.savez(home / "synthetic" / "synthetic.npz", pixels=pixels, **common)
    np.savez(home / "synthetic" / "initial.npz", pixels=initial, **common)


def make_number(mean: float, row: str = "distilled", run: str = "dir/dm", **more):
    """A row of results.csv."""
    shared = row in ("random_real", "random_real_soft", "teacher", "full_real")
    fields = {
        "data": "cifar10", "imbalance_factor": 100.0, "ipc": 10, "width": 32, "block": "i",
        "labels": "H" if row == "random_real" else "S1",
        "method": "random" if shared else run.partition("/")[2] or "dam_ed", "mean": mean,
        "std": 0.5, "seeds": 5, "experts": None, "iterations": None if shared else 100,
        "stored_bytes": 2000, "published": None, "command": f"make {run}", "commit": "abc1234",
        "row": row, "run": run.partition("/")[0] if shared else run, "epochs": 301,
    } | more  # fmt: skip
    return measured.Number(**fields)
