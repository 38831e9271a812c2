"""Breaks when an output of a run is missing or wrong, or when a stage repeats what is there."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.pipeline import runs, tiny_config

ROWS = ["distilled", "initial", "initial_at_baseline_rate", "random_real", "full_real"]


def test_workdir_holds_every_output_and_nothing_temporary(finished):
    assert {path.name for path in finished.iterdir()} == {
        "accuracy", "baselines", "config.json", "distill", "evaluate", "experts", "metrics.jsonl",
        "preprocessing.npz", "report.html", "report.json", "report.md",
        "seconds.json", "set.json", "synthetic",
    }  # fmt: skip
    kinds = ["classifier", "representation"]
    assert sorted(path.name[:-9] for path in (finished / "experts").iterdir()) == kinds
    assert sorted(path.name[:-14] for path in (finished / "accuracy").iterdir()) == kinds
    assert {path.name for path in (finished / "synthetic").iterdir()} == {
        "grid.png", "initial.npz", "iteration_000003.npz", "iteration_000006.npz", "synthetic.npz",
    }  # fmt: skip
    for folder, rows in (("evaluate", ROWS[:3]), ("baselines", ROWS[3:])):
        found = [path.name for path in (finished / folder).glob("*.json")]
        assert sorted(name[:-14] for name in found) == sorted(rows)
        assert all(re.fullmatch(r"\w+-[0-9a-f]{8}\.json", name) for name in found)
    assert not list(finished.glob("**/*tmp*")) and not list(finished.glob("**/*damaged*"))


def test_synthetic_set_has_the_documented_arrays(finished):
    config = tiny_config.get_config()
    size = 10 * config.distill.ipc
    with np.load(finished / "synthetic" / "synthetic.npz") as archive:
        arrays = dict(archive)
    assert {name: (a.dtype.str, a.shape) for name, a in arrays.items()} == {
        "images": ("<f4", (size, 8, 8, 1)),
        "pixels": ("|u1", (size, 8, 8, 1)),
        "label_logits": ("<f4", (size, 10)),
        "labels": ("<i4", (size,)),
        "step_size": ("<f4", ()),
        "class_names": ("<U1", (10,)),
    }
    np.testing.assert_array_equal(arrays["labels"], np.repeat(np.arange(10), config.distill.ipc))
    assert np.isfinite(arrays["images"]).all() and len(np.unique(arrays["pixels"])) > 10
    with Image.open(finished / "synthetic" / "grid.png") as picture:
        picture.load()


def test_report_has_every_result_and_absent_groups_are_absent(finished):
    report = json.loads((finished / "report.json").read_text())
    assert report["results"].keys() == set(ROWS)
    for name, result in report["results"].items():
        assert result.keys() - ({"hlr", "ior", "lrs"} if name == "distilled" else ()) == {
            "mean", "std", "per_seed", "per_class", "balanced", "many", "medium", "few",
            "title", "rate", "tuning", "num_epochs", "updates", "images", "block", "labels",
            "stored_bytes", "images_stored", "images_seen", "augmentation", "student", "seeds",
            "selection", "network", "protocol",
        }  # fmt: skip
        assert (len(result["per_seed"]), len(result["per_class"])) == (2, 10)
        assert np.mean(result["per_seed"]) == pytest.approx(result["mean"])
    assert {"config_hash", "data_fingerprint", "versions", "seconds", "experts"} <= report.keys()
    results = report["results"]
    assert (results["distilled"]["images"], results["full_real"]["images"]) == (10, 417)
    assert (results["distilled"]["updates"], results["full_real"]["updates"]) == (6, 2 * 4)
    assert report["seconds"].keys() == set(runs.STAGES)
    assert "distilled set" in (finished / "report.md").read_text()


def test_metrics_have_a_line_per_epoch_and_logged_iteration(finished):
    lines = [json.loads(x) for x in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        *(("representation", epoch) for epoch in range(1, 6)),
        *(("classifier", epoch) for epoch in range(1, 4)),
        ("representation_accuracy", 5),
        ("classifier_accuracy", 3),
        *(("distill", step) for step in (3, 6, 7)),
    ]
    assert all(line["loss_min"] <= line["loss"] <= line["loss_max"] for line in lines[:8])


def test_experts_on_stored_pixels_equal_those_on_network_input(finished, run, tmp_path):
    """Breaks when pixels are not whitened on the device, or not as elsewhere."""
    run(tmp_path / "run", stage="experts", runtime__image_storage="uint8")
    expected = runs.snapshots(finished / "experts")
    for name, (dtype, _, values) in runs.snapshots(tmp_path / "run" / "experts").items():
        a, b = (np.frombuffer(x, dtype) for x in (values, expected[name][2]))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_stage_by_stage_equals_all_at_once(finished, run, tmp_path):
    for stage in runs.STAGES:
        run(tmp_path / "run", stage)
    runs.assert_same(tmp_path / "run", finished)


def test_second_run_trains_nothing_and_says_what_is_there(copy, run, capfd, finished):
    workdir = copy()
    before = {p: p.stat().st_mtime_ns for p in workdir.glob("experts/**/*") if p.is_file()}
    capfd.readouterr()
    run(workdir)
    output = capfd.readouterr()
    assert "representation experts: 2 of 2 are there" in output.out
    assert "epoch/s" not in output.err and "iteration/s" not in output.err
    assert {p: p.stat().st_mtime_ns for p in before} == before
    runs.assert_same(workdir, finished)


def test_trajectories_are_shared_through_their_path(finished, run, tmp_path, capfd):
    fields = {"trajectory__image_lr": 2.0}  # what makes it another set
    run(tmp_path / "other", stage="experts", experts__path=str(finished / "experts"), **fields)
    assert "classifier experts: 2 of 2 are there" in capfd.readouterr().out
    assert not (tmp_path / "other" / "experts").exists()
    assert not (finished / "experts" / ".lock").exists()


def test_more_experts_add_to_those_that_are_there(finished, run, tmp_path):
    """Settings of distillation differ, so this is another run with the same experts."""
    shutil.copytree(finished / "experts", tmp_path / "experts")
    run(tmp_path / "run", "experts", experts__path=str(tmp_path / "experts"),
        experts__num_experts=3)  # fmt: skip
    before, after = runs.snapshots(finished / "experts"), runs.snapshots(tmp_path / "experts")
    assert {name: after[name] for name in before} == before
    assert {name.split(".")[1] for name in after} == {f"expert_{e:04d}" for e in range(3)}
    third = [name.split(".") for name in after if ".expert_0002." in name]
    epochs = {epoch for kind, _, epoch, *_ in third if kind.startswith("representation")}
    assert epochs == {f"{epoch:04d}" for epoch in range(6)}
