"""Breaks when something damaged is used, overwritten or not named, or stops a run for good."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from ltdd_jax import pipeline
from ltdd_jax.experts.trajectory import DamagedSegmentError
from ltdd_jax.pipeline import claims
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
    found = runs.find_experts(workdir, stage).glob("group_*/epochs_????_????")
    return sorted(found)[index]


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
        *(workdir / "accuracy").glob("classifier-*.json"),
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
    assert output.count("warning: ") >= 6
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_snapshot_found_damaged_in_distillation_is_trained_again(copy, finished, run, capfd):
    """Reading alone finds it: the records are intact."""
    workdir = copy(without=("distill", "evaluate"))
    for path in runs.find_experts(workdir, "representation").glob("group_*/epochs_????_????"):
        cut(path)
    run(workdir)
    output = capfd.readouterr().out
    assert "epochs_0000_0001.damaged-1" in output and "to be trained again" in output
    runs.assert_same(workdir, finished)


def test_last_snapshot_found_damaged_when_it_is_looked_at_is_trained_again(
    copy, finished, run, capfd
):
    """Breaks when the accuracy of experts, which is read again here, ends the run for good."""
    workdir = copy()
    damaged = segment(workdir, "classifier", -1)
    cut(damaged)
    shutil.rmtree(workdir / "accuracy")
    run(workdir, "experts")
    assert f"moved to {damaged.name}.damaged-1, to be trained again" in capfd.readouterr().out
    runs.assert_same(workdir, finished)


def test_damage_found_by_the_evaluation_is_mended_by_a_whole_run(copy, run, monkeypatch):
    """Breaks when only a distillation can move a damaged segment aside."""
    workdir, evaluate = copy(), pipeline.run_evaluate
    damaged = segment(workdir, "classifier", -1)
    found = []

    def find_damage(this):
        if not found:
            found.append(damaged)
            raise DamagedSegmentError(f"{damaged} was altered", epath.Path(damaged))
        return evaluate(this)

    monkeypatch.setattr(pipeline, "run_evaluate", find_damage)
    with pytest.raises(UserError, match=r"moved aside, run --stage=experts"):
        run(workdir, "evaluate")
    assert damaged.with_name(f"{damaged.name}.damaged-1").exists()
    found.clear()
    run(workdir)
    assert found and damaged.exists()


def test_one_stage_alone_names_the_damage_and_the_remedy(copy, run):
    workdir = copy(without=("distill", "evaluate"))
    for path in runs.find_experts(workdir, "classifier").glob("group_*/epochs_????_????"):
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
    damaged = [runs.find_result(workdir, row) for row in ("distilled", "random_real")]
    for path in damaged:
        alter(path, "0.", "0.9")
    run(workdir, "evaluate")
    output = capfd.readouterr().out
    assert all(f"{path.name} is damaged" in output for path in damaged)
    runs.assert_same(workdir, finished)


def test_incomplete_networks_of_an_evaluation_are_made_again(copy, finished, run, capfd):
    """Breaks when a cut copy fails the run after the training, the next run too."""
    workdir = copy()
    path = workdir / "evaluate" / "networks" / runs.find_result(workdir, "distilled").stem
    (path / "tree").mkdir(parents=True)
    run(workdir, "evaluate", evaluation__keep_networks=True)
    assert f"{path.name} is incomplete; moved to {path.name}.damaged-1" in capfd.readouterr().out
    assert path.with_name(f"{path.name}.damaged-1").exists()
    assert runs.read_arrays(path)
    before, after = (runs.find_result(x, "distilled") for x in (finished, workdir))
    assert json.loads(after.read_text()) == json.loads(before.read_text())


def test_results_of_another_synthetic_set_are_not_taken(copy, run):
    """Nor lost: the file of each set stands beside that of the other."""
    workdir = copy()
    path, before = workdir / "synthetic" / "synthetic.npz", runs.find_result(workdir, "distilled")
    content = before.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"images": arrays["images"][::-1]})
    run(workdir, "evaluate")
    (new,) = set((workdir / "evaluate").glob("distilled-*.json")) - {before}
    assert (
        json.loads(new.read_text())["per_seed_per_class"]
        != (json.loads(content)["per_seed_per_class"])
    )
    assert before.read_bytes() == content


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
    with pytest.raises(UserError, match=r"has no config\.json of this program"):
        run(workdir)
    assert before and not (workdir / "config.json").exists()


@pytest.mark.parametrize("stage", ["all", "evaluate"])
def test_damaged_or_missing_record_of_a_set_is_refused_and_left_alone(copy, run, stage):
    workdir = copy()
    alter(workdir / "set.json", '"ipc": 1', '"ipc": 2')
    before = (workdir / "set.json").read_bytes()
    with pytest.raises(UserError, match=r"set\.json is damaged .* restore it"):
        run(workdir, stage)
    assert (workdir / "set.json").read_bytes() == before
    (workdir / "set.json").unlink()
    with pytest.raises(UserError, match=r"set\.json is missing, so nobody knows"):
        run(workdir, stage)
    assert not (workdir / "set.json").exists()


def test_damaged_first_set_is_named_and_written_again(copy, finished, run):
    workdir = copy(without=("evaluate",))
    cut(workdir / "synthetic" / "initial.npz")
    with pytest.raises(UserError, match=r"initial\.npz is damaged .* delete it and run") as caught:
        run(workdir, "evaluate")
    assert "\n" not in str(caught.value)
    (workdir / "synthetic" / "initial.npz").unlink()
    run(workdir)
    runs.assert_same(workdir, finished)


@pytest.mark.parametrize("name", ["config.json", "set.json", "distill", "experts"])
def test_other_format_versions_are_refused_and_left_alone(copy, run, monkeypatch, name):
    """Breaks when a later version of the program reads what it does not understand."""
    workdir = copy()
    if name.endswith(".json"):
        change_version(workdir / name, claims.FORMAT_VERSION + 1)
    else:
        monkeypatch.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
    if name == "distill":
        for path in (workdir / "experts").glob("**/record/metadata"):
            change_version(path, checkpoint.FORMAT_VERSION)
    before = sorted(path for path in workdir.glob("**/*") if path.name != "seconds.json")
    with pytest.raises(UserError, match="format version") as caught:
        run(workdir)
    assert str(workdir / name if not name.endswith("json") else workdir) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path for path in workdir.glob("**/*") if path.name != "seconds.json") == before


def test_workdir_of_the_format_before_is_refused_with_one_sentence(tmp_path, run):
    """Format 2 had one identity for everything and no set.json."""
    workdir = tmp_path / "old"
    (workdir / "experts" / "representation" / "group_0000_0001").mkdir(parents=True)
    record = {"format_version": 2, "identity": {"seed": 0, "distill": {"ipc": 1}}, "config": {}}
    files.write_sealed(workdir / "config.json", record)
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"was written in format version 2, .* has 3; give") as e:
        run(workdir)
    assert "\n" not in str(e.value) and "--workdir" in str(e.value)
    assert (workdir / "config.json").read_bytes() == before
    assert {path.name for path in workdir.iterdir()} == {"config.json", "experts"}


def change_version(path, version):
    """Gives a sealed record another format version."""
    record = files.unseal(json.loads(path.read_text()))
    record["format_version"] = version
    path.write_text(json.dumps(files.seal(record)))
