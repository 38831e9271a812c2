"""Block (ii) in a real run with a teacher that answers one class whatever it sees."""

import itertools
import json
import signal

import numpy as np
import pytest

from ltdd_jax.report.text import ABSENT
from ltdd_jax.runtime import interrupt
from ltdd_jax.types import Interrupted
from tests.pipeline import fake_teachers

FAVOURITE = 3
FIELDS = {
    "student__num_epochs": 6,
    "student__batch_size": 4,
    "student__learning_rates": (0.5,),
    "student__temperature": 1.0,
}
TAUGHT = ("ii_random_real", "ii_initial", "ii_distilled")


@pytest.fixture
def taught(monkeypatch):
    made = fake_teachers.make(0, FAVOURITE)
    fake_teachers.install(monkeypatch, made)
    return made


def read_results(workdir):
    return {
        path.name.partition("-")[0]: json.loads(path.read_text())["per_seed_per_class"]
        for folder in ("evaluate", "baselines")
        for path in (workdir / folder).glob("*.json")
    }


def test_students_believe_the_teacher_and_the_blocks_stay_apart(copy, run, taught, finished):
    """Breaks when a row of block (ii) learns stored labels or classes, a row of block (i) asks the
    teacher, the two share a table, or the report has not the settings of the teacher that labels
    but those of the run that made the set, which asked none.
    """
    workdir = copy()
    run(workdir, "evaluate", evaluation__blocks=("i", "ii"), teacher__tau=0.5, **FIELDS)
    report = json.loads((workdir / "report.json").read_text())
    assert report["config"]["teacher"]["tau"] == 0.5
    results = report["results"]
    before = json.loads((finished / "report.json").read_text())["results"]
    assert {n: r for n, r in results.items() if r["block"] == "i"} == before
    assert {n for n, r in results.items() if r["block"] == "ii"} == set(TAUGHT)
    expected = 100.0 * (np.arange(10) == FAVOURITE)
    for name in TAUGHT:
        np.testing.assert_array_equal(results[name]["per_class"], expected)
        told = results[name]["teacher"]
        assert (told["mean"], told["balanced"], told["nets"]) == (10.0, 10.0, 1)
        assert sorted(told["per_class"]) == [0.0] * 9 + [100.0]
        assert "many" in told

    row = results["ii_distilled"]
    assert (row["labels"], row["num_epochs"], row["updates"]) == ("ST", 6, 6 * 3)
    assert row["stored_bytes"] == {"images": 4 * 10 * 64, "labels": 0, "teacher": 4 * 650}
    assert row["augmentation"] == "random resized crop (area 0.08 to 1), cutmix (1)"
    assert (row["seeds"], row["selection"], row["images_seen"]) == (2, "final iterate", 10)
    assert row["student"] == "convnet, width 4, depth 1"
    assert row["ior"] == 0 and row["rate"] == 0.5
    own = results["distilled"]
    assert (own["labels"], own["stored_bytes"]["labels"]) == ("S1", 4 * 10 * 10)
    assert results["random_real"]["labels"] == "H"
    assert results["full_real"]["stored_bytes"] == {"images": 417 * 64, "labels": 0, "teacher": 0}

    one, two = (workdir / "report.md").read_text().split("## Block (ii)")
    table = [line for line in two.split("\n\n")[1].splitlines()[2:]]
    assert [line.split(" | ")[0] for line in table] == [
        "| random real images (same number)",
        "| the set before the first iteration",
        "| distilled set (DAM + ED)",
    ]
    assert "| whole training set" in one and "| whole training set" not in "".join(table)
    assert "The teacher itself: 10.0 %" in two
    page = (workdir / "report.html").read_text()
    assert '<section id="taught">' in page and '<section id="results">' in page


def test_random_images_are_evaluated_without_a_row_of_the_set(copy, run, taught):
    """Breaks when rows that were left out are trained, or a report needs the distilled set."""
    workdir = copy(without=("evaluate",))
    fields = FIELDS | {"evaluation__networks": "mlp", "evaluation__num_epochs": 1}
    fields |= {"evaluation__blocks": ("i", "ii"), "evaluation__rows": ("random_real",)}
    run(workdir, "evaluate", **fields)
    wanted = {"random_real", "random_real@mlp", "ii_random_real"}
    assert set(read_results(workdir)) == wanted
    assert set(json.loads((workdir / "report.json").read_text())["results"]) == wanted
    text = (workdir / "report.md").read_text()
    assert "random real images" in text and f"| mlp | sgd | {ABSENT} |" in text
    page = (workdir / "report.html").read_text()
    assert '<section id="taught">' in page and '<section id="confusion">' not in page


@pytest.mark.slow
def test_stopped_students_equal_those_that_were_not(copy, run, taught, monkeypatch):
    """Breaks when the state of a student in training is not all that its future depends on."""
    fields = FIELDS | {
        "evaluation__blocks": ("ii",),
        "student__learning_rates": (0.01, 0.05),
        "student__ema": 0.5,
        "student__optimizer": "adamw",
    }
    fake_teachers.install(monkeypatch, fake_teachers.make(0))
    whole, stopped = copy(without=("evaluate",)), copy(without=("evaluate",), name="stopped")
    run(whole, "evaluate", **fields)
    calls, sittings = 0, 0

    def agree_max(received, *wishes):
        nonlocal calls
        calls += 1
        return (signal.SIGTERM if calls == limit else received, *wishes)

    monkeypatch.setattr(interrupt.processes, "agree_max", agree_max)
    patience = itertools.chain([4, 5, 5], itertools.repeat(9))
    while True:
        calls, limit, sittings = 0, next(patience), sittings + 1
        try:
            run(stopped, "evaluate", runtime__checkpoint_minutes=0.0, **fields)
            break
        except Interrupted:
            pass
    assert sittings > 2
    assert read_results(stopped) == read_results(whole)
    assert set(read_results(whole)) == set(TAUGHT)
    report = json.loads((stopped / "report.json").read_text())
    rates = {row["rate"] for row in report["results"].values()}
    assert len(rates) == 1 and report["results"]["ii_random_real"]["tuning"].keys() == {
        "0.01", "0.05"
    }  # fmt: skip
