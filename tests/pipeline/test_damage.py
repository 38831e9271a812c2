"""Breaks when something damaged is used, overwritten or not named, or stops a run for good."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from ltdd_jax.runtime import checkpoint, files
from ltdd_jax.types import UserError
from tests.pipeline import runs

# TensorStore may end a read of a damaged file after Orbax has stopped listening.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def cut(path: pathlib.Path) -> None:
    """Leaves the first half of a file, or of every array file of a checkpoint.

    Of every one: which of them holds what is read next differs from run to run.
    """
    for file in path.glob("tree/**/d/*") if path.is_dir() else [path]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def alter(path: pathlib.Path, before: str, after: str) -> None:
    """Replaces text in a file without changing its form."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def segment(workdir: pathlib.Path, stage: str, index: int) -> pathlib.Path:
    return sorted((workdir / "experts" / stage).glob("group_*/epochs_????_????"))[index]


def newest_step(workdir: pathlib.Path) -> pathlib.Path:
    return sorted((workdir / "distill").glob("step_????????"))[-1]


def swap_arrays(path: pathlib.Path, other: pathlib.Path) -> None:
    """Gives a checkpoint the intact arrays of another one, which only our checksums notice."""
    shutil.rmtree(path / "tree")
    shutil.copytree(other / "tree", path / "tree")


def test_one_run_mends_everything_that_is_damaged(copy, finished, run, capfd):
    workdir = copy(without=("evaluate",))
    damaged = [
        segment(workdir, "representation", 2) / "record" / "metadata",
        segment(workdir, "classifier", -1) / "record" / "metadata",
        newest_step(workdir),
        workdir / "preprocessing.npz",
        workdir / "seconds.json",
    ]
    for path in damaged:
        cut(path)
    missing = segment(workdir, "classifier", 0)
    shutil.rmtree(missing / "record")
    run(workdir)
    output = capfd.readouterr().out
    for path in (damaged[0].parents[1], missing, *damaged[2:]):
        assert path.name in output
        assert path.with_name(f"{path.name}.damaged-1").exists()
    assert output.count("warning: ") >= 4
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_snapshot_found_damaged_in_distillation_is_trained_again(copy, finished, run, capfd):
    """Reading alone finds it: the records are intact."""
    workdir = copy(without=("distill", "evaluate"))
    for path in (workdir / "experts" / "representation").glob("group_*/epochs_????_????"):
        cut(path)
    run(workdir)
    output = capfd.readouterr().out
    assert "epochs_0000_0001.damaged-1" in output and "to be trained again" in output
    runs.assert_same(workdir, finished)


def test_one_stage_alone_names_the_damage_and_the_remedy(copy, run):
    workdir = copy(without=("distill", "evaluate"))
    for path in (workdir / "experts" / "classifier").glob("group_*/epochs_????_????"):
        cut(path)
    with pytest.raises(UserError, match=r"moved aside, run --stage=experts"):
        run(workdir, "distill")


@pytest.mark.slow
def test_intact_arrays_of_another_checkpoint_are_not_taken(copy, finished, run, capfd):
    workdir = copy(without=("evaluate",))
    steps = sorted((workdir / "distill").glob("step_????????"))
    swap_arrays(steps[-1], steps[-2])
    run(workdir)
    assert f"{steps[-1].name}.damaged-1" in capfd.readouterr().out
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_distillation_starts_over_when_no_checkpoint_is_left(copy, finished, run, capfd):
    workdir = copy(without=("evaluate",))
    for path in (workdir / "distill").glob("step_????????"):
        cut(path)
    run(workdir)
    assert capfd.readouterr().out.count("going back to the one before") == 2
    assert len(list((workdir / "distill").glob("*.damaged-1"))) == 2
    runs.assert_same(workdir, finished)


def test_altered_results_of_an_evaluation_are_made_again(copy, finished, run, capfd):
    workdir = copy()
    alter(workdir / "evaluate" / "distilled.json", "0.", "0.9")
    run(workdir, "evaluate")
    assert "distilled.json is damaged" in capfd.readouterr().out
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_results_of_another_synthetic_set_are_not_taken(copy, run, capfd):
    workdir = copy()
    path = workdir / "synthetic" / "synthetic.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"images": arrays["images"] + 1})
    run(workdir, "evaluate")
    assert "distilled.json is of another synthetic set" in capfd.readouterr().out


def test_damaged_synthetic_set_is_named_and_written_again(copy, finished, run):
    workdir = copy()
    path = workdir / "synthetic" / "synthetic.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"synthetic\.npz is damaged .* run --stage=distill"):
        run(workdir, "evaluate")
    run(workdir)
    runs.assert_same(workdir, finished)


def test_damaged_metrics_line_is_named_and_kept_aside(copy, run, capfd):
    workdir = copy()
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    alter(workdir / "metrics.jsonl", '"step": 6', '"step": 5')
    run(workdir)
    assert "line 4 was damaged" not in (output := capfd.readouterr().out)
    assert "metrics.jsonl: line" in output
    assert (workdir / "metrics.jsonl.damaged-1").exists()
    kept = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert [line for line in lines if line not in kept] == [
        line for line in lines if '"step": 6' in line
    ]


def test_damaged_config_is_refused_and_left_alone(copy, run):
    workdir = copy()
    alter(workdir / "config.json", '"seed": 0', '"seed": 1')
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"config\.json is damaged .* restore it"):
        run(workdir)
    (workdir / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        run(workdir)
    assert before and not (workdir / "config.json").exists()


@pytest.mark.parametrize("name", ["config.json", "distill", "experts/representation"])
def test_other_format_versions_are_refused_and_left_alone(copy, run, monkeypatch, name):
    workdir = copy()
    if name != "config.json":
        rewrite_config(workdir)
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
    if name == "distill":
        for path in (workdir / "experts").glob("**/record/metadata"):
            rewrite(path)
    before = sorted(path for path in workdir.glob("**/*") if path.name != "seconds.json")
    with pytest.raises(UserError, match="format version") as caught:
        run(workdir)
    assert name.split("/")[0] in str(caught.value) or str(workdir) in str(caught.value)
    assert sorted(path for path in workdir.glob("**/*") if path.name != "seconds.json") == before


def rewrite(path):
    """Gives a sealed record the current format version."""
    record = files.unseal(json.loads(path.read_text()))
    record["format_version"] = checkpoint.FORMAT_VERSION
    path.write_text(json.dumps(files.seal(record)))


def rewrite_config(workdir):
    path = workdir / "config.json"
    record = files.unseal(json.loads(path.read_text()))
    record["format_version"] = checkpoint.FORMAT_VERSION + 1
    path.write_text(json.dumps(files.seal(record)))
