"""Breaks when a snapshot of another expert, epoch or run is read, or memory grows with experts."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.experts import trajectory
from ltdd_jax.runtime import checkpoint
from ltdd_jax.types import UserError

IDENTITY = {"seed": 0, "net": {"width": 4}}
LIKE = {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}


def value(expert, epoch):
    return np.arange(3, dtype=np.float32) + 100 * expert + epoch


def snapshots(experts, epochs):
    return {t: {"w": np.stack([value(e, t) for e in experts])} for t in epochs}


def write(directory, experts, segments, num_epochs=4, width=None):
    found = trajectory.Trajectories(directory, IDENTITY, num_epochs)
    group = trajectory.Group(experts, -1, width or len(experts))
    with checkpoint.Writer() as writer:
        for epochs in segments:
            losses = [[e + t / 10 for e in experts] for t in epochs if t > 0]
            state = {"step": np.int32(epochs[-1])}
            found.append(writer, group, snapshots(experts, epochs), state, losses)


def opened(directory, num_epochs=4, **options):
    return trajectory.Trajectories(directory, IDENTITY, num_epochs, **options)


@pytest.fixture
def directory(tmp_path):
    """Experts 0 and 1 complete in two segments, expert 2 up to epoch 1."""
    write(tmp_path, range(0, 2), [range(0, 3), range(3, 5)])
    write(tmp_path, range(2, 3), [range(0, 2)], width=2)
    return tmp_path


def test_every_snapshot_is_the_one_written(directory):
    found = opened(directory)
    for expert in (0, 1):
        for epoch in range(5):
            np.testing.assert_array_equal(
                found.read(expert, epoch, LIKE)["w"], value(expert, epoch)
            )
    np.testing.assert_array_equal(found.read(1, -1, LIKE)["w"], value(1, 4))
    np.testing.assert_array_equal(found.read(2, 1, LIKE)["w"], value(2, 1))


def test_groups_say_where_to_continue(directory):
    found = opened(directory)
    assert found.groups() == [
        trajectory.Group(range(0, 2), 4, 2),
        trajectory.Group(range(2, 3), 1, 2),
    ]
    assert found.complete_experts() == [0, 1]
    assert found.read_state(range(2, 3), {"step": jax.ShapeDtypeStruct((), jnp.int32)})["step"] == 1


def test_losses_have_a_row_per_epoch_and_a_column_per_expert(directory):
    expected = np.array([[e + t / 10 for e in range(2)] for t in range(1, 5)])
    np.testing.assert_array_equal(opened(directory).losses(2), expected)


def test_missing_snapshots_name_the_stage_to_run(directory):
    for expert, epoch in ((2, 2), (3, 0)):
        with pytest.raises(UserError, match=f"expert {expert} at epoch {epoch}.*--stage=experts"):
            opened(directory).read(expert, epoch, LIKE)


def test_other_identity_is_refused_with_its_fields(directory):
    with pytest.raises(UserError, match=r"other settings: net\.width: 4 -> 8; seed: 0 -> 1"):
        trajectory.Trajectories(directory, {"seed": 1, "net": {"width": 8}}, 4)


def test_one_snapshot_is_read_without_the_others(directory, monkeypatch):
    wanted = []
    original = checkpoint.read_tree

    def read_tree(path, like, record=None):
        wanted.append(len(jax.tree.leaves(like)))
        return original(path, like, record)

    monkeypatch.setattr(trajectory.checkpoint, "read_tree", read_tree)
    found = opened(directory, cache_bytes=10**6)
    for _ in range(3):
        found.read(0, 1, LIKE)
    assert wanted == [1]


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_cache_is_bounded_whatever_the_number_of_snapshots(directory, capacity):
    found = opened(directory, cache_bytes=12 * capacity)
    for _ in range(2):
        for expert in (0, 1):
            for epoch in range(5):
                found.read(expert, epoch, LIKE)
                assert len(found._cache._kept) <= capacity
    assert found._cache._num_bytes == 12 * capacity


@pytest.mark.parametrize("kind", ["incomplete", "record", "gap", "renamed"])
def test_damaged_segment_is_named_and_moves_aside_with_those_after_it(directory, kind):
    group = directory / "group_0000_0001"
    damaged = group / "epochs_0000_0002"
    if kind == "incomplete":
        shutil.rmtree(damaged / "record")
    elif kind == "record":
        (damaged / "record" / "metadata").write_text("{}")
    elif kind == "gap":
        shutil.rmtree(damaged)
        damaged = group / "epochs_0003_0004"
    else:
        shutil.rmtree(directory / "group_0002_0002" / "epochs_0000_0001")
        damaged.rename(directory / "group_0002_0002" / "epochs_0000_0002")
        damaged = directory / "group_0002_0002" / "epochs_0000_0002"
        shutil.rmtree(group)
    with pytest.raises(trajectory.DamagedSegmentError) as caught:
        opened(directory)
    assert caught.value.path == damaged and str(damaged) in str(caught.value)
    moved = trajectory.set_aside(caught.value.path)
    assert moved[0].name == f"{damaged.name}.damaged-1"
    assert all(path.exists() for path in moved)
    assert len(moved) == (2 if kind in ("incomplete", "record") else 1)
    begun = {g.experts: g.last_epoch for g in opened(directory).groups()}
    assert begun[range(2, 3) if kind == "renamed" else range(0, 2)] == -1


def test_damaged_array_is_named_when_it_is_read(directory):
    segment = directory / "group_0000_0001" / "epochs_0003_0004"
    for file in (segment / "tree").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(b"")
    found = opened(directory)
    found.read(0, 0, LIKE)
    with pytest.raises(trajectory.DamagedSegmentError, match="epochs_0003_0004 is damaged"):
        found.read(0, 4, LIKE)


def test_format_version_is_refused_and_not_taken_for_damage(directory, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    with pytest.raises(checkpoint.FormatVersionError, match="this program reads 99"):
        opened(directory)


def test_what_a_cut_write_left_is_deleted(directory):
    rest = directory / "group_0000_0001" / "epochs_0005_0006.orbax-checkpoint-tmp-3"
    rest.mkdir()
    trajectory.delete_unfinished(directory)
    assert not rest.exists()
