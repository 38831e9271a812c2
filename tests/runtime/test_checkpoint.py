"""Checkpoints: whole or absent, checked when read, readable in part."""

import errno
import json
import os
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.runtime import checkpoint
from ltdd_jax.types import UserError


@pytest.fixture
def tree():
    return {
        "params": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
        "key": jax.random.key(7),
        "step": jnp.zeros((), jnp.int32),
        "empty": (),
    }


@pytest.fixture
def saved(tree, tmp_path):
    path = checkpoint.step_path(tmp_path, 3)
    with checkpoint.Writer() as writer:
        writer.save(path, tree, {"note": "x"})
    return path


def test_round_trip_keeps_values_types_and_record(saved, tree):
    got = checkpoint.read_tree(saved, jax.eval_shape(lambda: tree))
    assert checkpoint.read_record(saved)["note"] == "x"
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    np.testing.assert_array_equal(got["params"]["kernel"], tree["params"]["kernel"])
    np.testing.assert_array_equal(jax.random.key_data(got["key"]), jax.random.key_data(tree["key"]))


def test_a_part_can_be_read_alone(saved):
    got = checkpoint.read_tree(saved, {"params": {"bias": jax.ShapeDtypeStruct((3,), jnp.float32)}})
    np.testing.assert_array_equal(got["params"]["bias"], np.ones(3))


@pytest.mark.parametrize(
    "like",
    [
        {"params": {"absent": jax.ShapeDtypeStruct((3,), jnp.float32)}},
        {"params": {"bias": jax.ShapeDtypeStruct((4,), jnp.float32)}},
        {"params": {"bias": jax.ShapeDtypeStruct((3,), jnp.int32)}},
    ],
)
def test_other_names_shapes_and_dtypes_are_refused(saved, like):
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.read_tree(saved, like)


def test_altered_array_is_found(saved, tree, tmp_path):
    """Orbax alone returns the wrong number here."""
    other = tmp_path / "other"
    with checkpoint.Writer() as writer:
        writer.save(other, {**tree, "params": {**tree["params"], "bias": jnp.zeros(3)}}, {})
    shutil.rmtree(saved / "tree")
    shutil.copytree(other / "tree", saved / "tree")
    with pytest.raises(checkpoint.CorruptCheckpointError, match=r"params\.bias was altered"):
        checkpoint.read_tree(saved, jax.eval_shape(lambda: tree))


def test_altered_record_is_found(saved):
    record_file = saved / "record" / "metadata"
    record_file.write_text(record_file.read_text().replace('"x"', '"y"'))
    with pytest.raises(checkpoint.CorruptCheckpointError, match="record cannot be trusted"):
        checkpoint.read_record(saved)


def test_state_given_away_after_the_save_is_saved_as_it_was(tmp_path):
    """Donated memory is written to while the save is still going on."""
    state = jax.device_put(np.zeros(2**20, np.float32))
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    with checkpoint.Writer() as writer:
        writer.save(tmp_path / "x", {"a": state}, {})
        for _ in range(20):
            state = step(state)
    got = checkpoint.read_tree(tmp_path / "x", {"a": jax.ShapeDtypeStruct((2**20,), jnp.float32)})
    np.testing.assert_array_equal(got["a"], 0)


def test_newest_good_step_is_restored_and_the_others_move_aside(saved, tree, tmp_path):
    with checkpoint.Writer() as writer:
        for step in (4, 5):
            writer.save(checkpoint.step_path(tmp_path, step), tree, {"note": step})
    shutil.rmtree(checkpoint.step_path(tmp_path, 5) / "record")
    file = next(pathlib.Path(checkpoint.step_path(tmp_path, 4), "tree").rglob("d/*"))
    file.write_bytes(b"")
    (tmp_path / "step_00000006.orbax-checkpoint-tmp-1").mkdir()
    warnings = []
    _, record, step = checkpoint.restore_newest(
        tmp_path, jax.eval_shape(lambda: tree), warnings.append
    )
    assert (record["note"], step, len(warnings)) == ("x", 3, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_00000003", "step_00000004.damaged-1", "step_00000005.damaged-1",
    ]  # fmt: skip
    assert checkpoint.restore_newest(tmp_path / "absent", {}, warnings.append) is None


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_checkpoint_that_cannot_be_read_now_stays(saved, tree, tmp_path, monkeypatch, is_wrapped):
    """Breaks when a limit of open files, or a permission, starts a run from the beginning."""

    def fail(*arguments, **more):
        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if is_wrapped:
            raise ValueError("Error opening the array") from error
        raise error

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail)
    with pytest.raises(UserError, match=r"step_00000003 cannot be read now: Too many open") as e:
        checkpoint.restore_newest(tmp_path, jax.eval_shape(lambda: tree), pytest.fail)
    assert not isinstance(e.value, checkpoint.CorruptCheckpointError)
    assert list(tmp_path.iterdir()) == [pathlib.Path(saved)]


def test_checkpoint_that_cannot_be_looked_at_now_stays(saved, tree, tmp_path, monkeypatch):
    """Breaks when a directory without the permission to enter it is taken for an incomplete one."""

    def fail(path, **more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch, pytest.raises(UserError, match="Permission denied; mend"):
        patch.setattr(checkpoint.files.os, "stat", fail)
        checkpoint.is_complete(saved)
    assert checkpoint.is_complete(saved)


def test_error_that_only_tells_of_open_files_is_damage(saved, tree, monkeypatch):
    """A text of TensorStore is no proof: what is unreadable for good says the like."""

    def fail(*arguments, **more):
        raise ValueError("RESOURCE_EXHAUSTED: Too many open files")

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail)
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.read_tree(saved, jax.eval_shape(lambda: tree))


def test_full_disk_is_told_before_anything_is_written(tree, tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=100)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="No space left"), checkpoint.Writer() as writer:
        writer.save(tmp_path / "x", tree, {})
    assert list(tmp_path.iterdir()) == []


def test_truncated_files_are_found(saved, tree):
    for file in pathlib.Path(saved, "tree").rglob("*"):
        if file.is_file() and file.stat().st_size > 0 and "d" in file.parent.name:
            file.write_bytes(b"")
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.read_tree(saved, jax.eval_shape(lambda: tree))


def test_record_of_another_version_is_refused(saved):
    record_file = saved / "record" / "metadata"
    record_file.write_text(json.dumps(json.loads(record_file.read_text()) | {"format_version": 0}))
    with pytest.raises(UserError, match="format version 0"):
        checkpoint.read_record(saved)


def test_only_finished_steps_count(saved, tmp_path):
    (tmp_path / "step_00000009.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / "step_00000010").mkdir()
    (tmp_path / "other").mkdir()
    assert checkpoint.complete_steps(tmp_path) == [3]
    assert checkpoint.complete_steps(tmp_path / "absent") == []


def test_prune_keeps_what_it_is_told(saved, tree, tmp_path):
    with checkpoint.Writer() as writer:
        writer.save(checkpoint.step_path(tmp_path, 4), tree, {})
        writer.wait()
    checkpoint.prune(tmp_path, keep=[4])
    assert checkpoint.complete_steps(tmp_path) == [4]


def test_unwritable_place_is_explained(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), checkpoint.Writer() as writer:
        writer.save(tmp_path / "file" / "step_00000001", tree, {})
        writer.wait()
