"""Breaks when methods cannot run side by side as a table, or train what is there.

All methods go the same way in continuous integration: `configs/tables/digits.py:ci`.
"""

import csv
import json

import numpy as np
import pytest

from ltdd_jax.table import __main__ as program_of_tables
from tests.pipeline import finished_table, runs

METHODS = ("dam_ed", "dam", "herding")  # dam shares its experts with the first

TABLE = """
from ltdd_jax.table import Cell, Table

FAST = {"evaluation.num_seeds": 2, "evaluation.baseline_rates": (0.05,)}


def get_table(argument=""):
    methods = argument.split(",")
    cells = (Cell("digits_lt", m, argument="smoke", overrides=FAST, name=m) for m in methods)
    return Table("Three methods", tuple(cells), "three_methods")
"""


@pytest.fixture
def command(settings, program, tmp_path):
    """Runs the command line of tables in this process; returns its exit code."""
    file = tmp_path / "table.py"
    file.write_text(TABLE)

    def run(*more):
        return program_of_tables.main(
            [
                *(f"--config={file}:{','.join(METHODS)}", f"--workdir={tmp_path / 'run'}"),
                *(f"--config.runtime.compilation_cache={program.cache}", *more),
            ]
        )

    return run


@pytest.mark.slow
def test_methods_run_side_by_side(command, tmp_path, capsys):
    """One directory, one set each; experts and baselines are made once, and nothing again."""
    root = tmp_path / "run"
    assert command("--dry_run") == 0 and not root.exists()
    plan = capsys.readouterr().out.splitlines()
    assert plan[0] == f"3 cells -> {root}"
    assert {line.split(", ")[0] for line in plan[1:4]} == {f"  {m}: waiting" for m in METHODS}

    assert command("--only=dam*") == 0
    said = capsys.readouterr().out
    assert "representation experts: 2 of 2 are there" in said  # for the second of the two
    assert "2 of 3 cells are finished, 1 is waiting." in said

    assert command() == 0
    said = capsys.readouterr().out
    assert "2 of 3 cells are finished already\n== cell 1 of 1: herding" in said
    finished_table.check_table(root, METHODS)
    (place,) = root.glob("digits-*")
    assert len(list((place / "baselines").glob("*.json"))) == 2  # made once
    experts = sorted(path.name.split("-")[0] for path in (place / "experts").iterdir())
    assert experts == ["classifier", "representation"]

    before = runs.names(root), (root / "table.csv").read_bytes()
    assert command() == 0
    said = capsys.readouterr().out
    assert said.startswith("3 of 3 cells are finished already\n3 of 3 cells are finished.")
    assert (runs.names(root), (root / "table.csv").read_bytes()) == before
    check_numbers(root, place)


def check_numbers(root, place):
    """The table says what the reports say."""
    text = (root / "table.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["cell"] for row in rows if row["row"] == "distilled"] == list(METHODS)
    for row in rows:
        report = json.loads((place / "sets" / row["cell"] / "report.json").read_text())
        assert float(row["mean"]) == report["results"][row["row"]]["mean"]
    assert sum(row["row"] == "random_real" for row in rows) == 1  # the same for all


def test_the_check_of_a_table_sees_equal_sets():
    """The check of continuous integration can fail."""
    images = np.ones((2, 3))
    finished_table.check_distinct({"a": images, "b": 2 * images, "c": np.ones((3, 2))})
    with pytest.raises(AssertionError, match="'a', 'c'"):
        finished_table.check_distinct({"a": images, "b": 2 * images, "c": images.copy()})


def test_the_check_of_a_table_sees_experts_that_were_trained_twice(tmp_path):
    place = tmp_path / "digits"
    for name in ("representation-1", "representation-2"):
        (place / "experts" / name).mkdir(parents=True)
    (place / "sets").mkdir()
    with pytest.raises(AssertionError, match="representation"):
        finished_table.check_table(tmp_path, ())
