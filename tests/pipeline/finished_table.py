"""What must hold of a table of the digits when all its methods have run side by side.

    python -m tests.pipeline.finished_table DIR    # the --workdir of the table

Continuous integration runs the table of all methods and then this; the tests run a small one.
"""

import json
import pathlib
import sys
from collections.abc import Iterable

import numpy as np

from ltdd_jax.presets import PRESETS

_KINDS = ("representation", "classifier")
_TEACHERS = ("teacher", "observer")


def check_table(workdir: pathlib.Path, methods: Iterable[str]) -> None:
    """Raises AssertionError where sets, experts or rows are not what the methods make.

    Args:
      workdir: of the table; its cells are named like their methods and have the same data.
      methods: of the cells.
    """
    (place,) = [path for path in workdir.iterdir() if (path / "sets").is_dir()]
    made, recipes = {}, {kind: set() for kind in (*_KINDS, *_TEACHERS)}
    for method in methods:
        home = place / "sets" / method
        report = json.loads((home / "report.json").read_text())
        check_report(report, (home / "report.html").read_text(encoding="utf-8"), method)
        for number, kind in enumerate(_KINDS):
            if kind in report["experts"]:
                parts = [report["config"]["experts"][k] for k in _KINDS[: number + 1]]
                recipes[kind].add(json.dumps(parts, sort_keys=True))
        for kind in _TEACHERS:
            for number, net in enumerate(report["config"][kind]["nets"]):
                if any(name.startswith(kind) for name in report["teachers"]):
                    recipe = report["config"][kind] | {"nets": None}
                    recipes[kind].add(json.dumps([number, net, recipe], sort_keys=True))
        with np.load(home / "synthetic" / "synthetic.npz") as archive:
            for name in ("images", "label_logits"):
                assert np.isfinite(archive[name]).all(), f"{method}: {name}"
            made[method] = archive["images"]
    check_distinct(made)
    found = [*place.glob("experts/*-*"), *place.glob("teachers/*-*")]
    trained = [path.name.rpartition("-")[0] for path in found]
    for kind, wanted in recipes.items():  # equal recipes are the same networks, trained once
        assert trained.count(kind) == len(wanted), f"{kind}: {trained}"
    for row in ("random_real", "full_real"):
        assert list((place / "baselines").glob(f"{row}-*.json")), row


def check_report(report: dict, page: str, method: str) -> None:
    """What the report of a cell says of its method."""
    rows, preset = report["results"], PRESETS[method]
    assert {"distilled", "random_real", "full_real"} <= rows.keys(), method
    if preset.section == "trajectory":
        assert "initial" in rows and "the real image it started from" in page, method
    is_selection = preset.section == "selection"
    assert not (is_selection and "initial" in rows), method
    assert ("selected real image" in page) == is_selection, method
    assert preset.title in rows["distilled"]["title"], method
    assert report["config"]["distill"]["method"] == method


def check_distinct(made: dict[str, np.ndarray]) -> None:
    """No two methods may have made the same images."""
    names = list(made)
    same = [
        (a, b)
        for place, a in enumerate(names)
        for b in names[place + 1 :]
        if made[a].shape == made[b].shape and (made[a] == made[b]).all()
    ]
    assert not same, same


def main(argv: list[str]) -> None:
    workdir = pathlib.Path(argv[1])
    methods = sorted(path.stem for path in (workdir / "cells").glob("*.json"))
    assert set(methods) == PRESETS.keys(), "not all methods have run"
    check_table(workdir, methods)
    print(f"{len(methods)} methods: sets differ, experts with the same recipe were trained once")


if __name__ == "__main__":
    from ltdd_jax import config  # noqa: F401  so that all methods are registered

    main(sys.argv)
