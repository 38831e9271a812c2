"""Breaks when the sets of a directory share too little or get in each other's way."""

import itertools
import json

import numpy as np
import pytest

from ltdd_jax.types import UserError
from tests.pipeline import runs


def list_times(*folders):
    """When each file below was written."""
    files = [path for folder in folders for path in folder.glob("**/*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_second_set_shares_experts_and_baselines_and_leaves_the_first_alone(
    copy, finished, run, capfd
):
    workdir = copy()
    shared = [workdir / name for name in ("experts", "accuracy", "baselines")]
    before = list_times(*shared)
    run(workdir, set_name="other", trajectory__image_lr=2.0)
    output = capfd.readouterr()
    for kind in ("representation", "classifier"):
        assert f"{kind} experts: 2 of 2 are there" in output.out
    assert list_times(*shared) == before
    runs.assert_same(workdir, finished)
    other = workdir / "sets" / "other"
    assert {path.name for path in other.iterdir()} == {
        "distill", "evaluate", "metrics.jsonl", "report.html", "report.json", "report.md",
        "seconds.json", "set.json", "synthetic",
    }  # fmt: skip
    one, two = (json.loads((x / "report.json").read_text()) for x in (workdir, other))
    for row in ("random_real", "full_real"):
        assert one["results"][row] == two["results"][row]
    assert one["config_hash"] != two["config_hash"]
    assert one["experts"] == two["experts"]
    with np.load(workdir / "synthetic" / "initial.npz") as first:
        start = dict(first)
    with np.load(other / "synthetic" / "initial.npz") as second:
        np.testing.assert_array_equal(start["images"], second["images"])
    with np.load(other / "synthetic" / "synthetic.npz") as second:
        assert not np.array_equal(start["images"], second["images"])


@pytest.mark.parametrize("stage", ["all", "distill"])
def test_other_distillation_is_refused_and_nothing_is_overwritten(copy, run, stage):
    workdir = copy()
    before = list_times(workdir)
    with pytest.raises(UserError, match=r"trajectory\.image_lr: 1\.0 -> 2\.0") as caught:
        run(workdir, stage, trajectory__image_lr=2.0, evaluation__num_seeds=1)
    message = str(caught.value)
    assert "nothing is overwritten" in message and "--set=NAME" in message
    assert "evaluation" not in message and "\n" not in message
    assert list_times(workdir) == before


def test_settings_may_change_until_there_is_a_set(finished, run, tmp_path):
    """Breaks when a run that was stopped among the experts holds the place of its set."""
    with pytest.raises(UserError, match="experts are missing"):
        run(tmp_path / "run", "distill")
    with pytest.raises(UserError, match="experts are missing"):
        run(tmp_path / "run", "distill", trajectory__image_lr=2.0)
    record = json.loads((tmp_path / "run" / "set.json").read_text())
    assert record["identity"]["trajectory"]["image_lr"] == 2.0


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"evaluation__num_seeds": 1}, marks=pytest.mark.slow),
        pytest.param(
            {"evaluation__batch_size": 5, "evaluation__baseline_rates": (0.03,)},
            marks=pytest.mark.slow,
        ),
        {"net__name": "mlp"},
    ],
    ids=["seeds", "protocol", "network"],
)
def test_other_evaluation_in_the_same_directory_and_back(copy, finished, run, capfd, fields):
    """Breaks when it needs a new directory, takes old results or loses them."""
    workdir = copy()
    before = list_times(workdir / "evaluate", workdir / "baselines")
    run(workdir, "evaluate", **fields)
    after = list_times(workdir / "evaluate", workdir / "baselines")
    assert {path: after[path] for path in before} == before
    assert len([path for path in after if path.suffix == ".json"]) == 2 * 5
    one, two = (json.loads((x / "report.json").read_text()) for x in (finished, workdir))
    for row, result in one["results"].items():
        assert two["results"][row]["per_seed"] != result["per_seed"], row
    if "evaluation__baseline_rates" in fields:  # a single rate is used as it is
        chosen = [two["results"][row] for row in ("random_real", "full_real")]
        assert [(row["rate"], row["tuning"]) for row in chosen] == 2 * [(0.03, {})]
    capfd.readouterr()
    run(workdir, "evaluate")
    assert "epoch/s" not in capfd.readouterr().err
    found = json.loads((workdir / "report.json").read_text())
    assert found["results"] == one["results"]


def test_report_has_the_settings_that_made_the_set(copy, finished, run):
    """Also when it is evaluated under other ones."""
    workdir = copy()
    run(workdir, "evaluate", distill__ipc=2, trajectory__image_lr=2.0)
    found, before = (json.loads((x / "report.json").read_text()) for x in (workdir, finished))
    for section in ("distill", "trajectory"):
        assert found["config"][section] == before["config"][section]
    assert found["results"] == before["results"]
    assert "1 images per class from" in (workdir / "report.md").read_text()


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "two words", "x" * 101, "名" * 67])
def test_impossible_name_of_a_set(run, tmp_path, name):
    with pytest.raises(UserError, match=r"--set=.* is not possible: it must be a file name"):
        run(tmp_path / "run", set_name=name)
    assert not (tmp_path / "run").exists()


def test_directory_with_something_else_is_refused_and_left_alone(run, tmp_path):
    workdir = tmp_path / "work"
    workdir.mkdir()
    (workdir / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty \(thesis\.tex is there\)") as caught:
        run(workdir)
    assert "give a new or an empty directory" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in workdir.iterdir()] == ["thesis.tex"]


def test_sets_on_the_way_are_kept_as_they_were(finished):
    """Equal to what the checkpoint of that iteration holds; breaks when they come a step late."""
    arrays = runs.read_arrays(finished / "distill" / "step_00000006")
    with np.load(finished / "synthetic" / "iteration_000006.npz") as kept:
        for name in ("images", "label_logits", "step_size"):
            np.testing.assert_array_equal(kept[name], arrays[f"synthetic.{name}"])
        np.testing.assert_array_equal(kept["labels"], np.arange(10))
    images = []
    for name in ("initial", "iteration_000003", "iteration_000006", "synthetic"):
        with np.load(finished / "synthetic" / f"{name}.npz") as archive:
            images.append(archive["images"])
    for before, after in itertools.pairwise(images):
        assert not np.array_equal(before, after)


def test_no_set_on_the_way_is_kept_unless_asked(finished, run, tmp_path):
    path = str(finished / "experts")
    run(tmp_path / "run", "distill", experts__path=path, distill__keep_steps=0)
    assert not list((tmp_path / "run" / "synthetic").glob("iteration_*"))


def test_curve_and_kept_networks_come_when_they_are_asked_for_later(copy, finished, run):
    workdir = copy()
    run(workdir, "evaluate", evaluation__curve=True, evaluation__keep_networks=True)
    report = json.loads((workdir / "report.json").read_text())
    before = json.loads((finished / "report.json").read_text())
    curve = ["iteration_000003", "iteration_000006"]
    assert report["results"].keys() == {*before["results"], *curve}
    for row, result in before["results"].items():
        assert report["results"][row] == result, row
    means = {row: report["results"][row]["mean"] for row in [*curve, "distilled"]}
    assert means[report["best_on_test"]["row"]] == max(means.values())
    assert report["best_on_test"]["mean"] == max(means.values())
    assert before["best_on_test"] is None
    assert "after iteration" in (workdir / "report.md").read_text()
    for row in report["results"]:
        (kept,) = workdir.glob(f"*/networks/{row}-????????")
        arrays = runs.read_arrays(kept)
        assert arrays and all(len(array) == 2 for array in arrays.values()), row
        assert all(np.isfinite(array).all() for array in arrays.values())
    assert not list(finished.glob("*/networks"))
