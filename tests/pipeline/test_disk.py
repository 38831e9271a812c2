"""Breaks when a full disk ends in a traceback or costs what was saved before."""

import errno
import os
import subprocess

import orbax.checkpoint as ocp
import pytest

from ltdd_jax.runtime import files
from ltdd_jax.types import UserError
from tests.pipeline import runs


@pytest.mark.parametrize(
    "good_saves",
    [
        pytest.param(0, marks=pytest.mark.slow),
        pytest.param(6, marks=pytest.mark.slow),
        pytest.param(10, marks=pytest.mark.slow),
    ],
)
def test_failed_save_names_the_place_and_the_run_continues(
    finished, run, tmp_path, monkeypatch, good_saves
):
    """Saves 1 to 8 are of experts, the rest of distillation and evaluation."""
    original, calls = ocp.Checkpointer.save, 0

    def save(self, *arguments, **options):
        nonlocal calls
        calls += 1
        if calls > good_saves:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", save)
        with pytest.raises(UserError, match=r"cannot write .*No space left.*before is intact"):
            run(tmp_path / "run")
    run(tmp_path / "run")
    runs.assert_same(tmp_path / "run", finished)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "report.json", "config.json", "set.json", "initial.npz"]
)
def test_failed_write_of_a_file_is_explained(copy, run, monkeypatch, tmp_path, name):
    if name == "config.json":
        workdir = tmp_path / "new"
    else:
        workdir = copy(without=("distill", "evaluate"))
        for path in (workdir / name, workdir / "set.json"):
            path.unlink(missing_ok=True)
    original = os.fsync

    def fsync(descriptor):
        if name in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(UserError, match=rf"cannot write .*{name}: Disk quota exceeded"):
        run(workdir)
    assert not list(workdir.glob(f"**/{name}"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a size to be set; skips where mounting is not allowed."""
    path = tmp_path / "disk"
    path.mkdir()

    def resize(kilobytes, remount=True):
        options = f"{'remount,' if remount else ''}size={kilobytes}k"
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True
        ).returncode

    try:
        if resize(100, remount=False):
            pytest.skip("mounting a small tmpfs needs root")
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    yield path, resize
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.slow
def test_disk_that_is_really_full(program, finished, small_disk):
    """Seen before the start where the plan does not fit, else when it is full: files take more."""
    disk, resize = small_disk
    reasons = []
    for kilobytes in (40, 100, 220, 300):
        resize(kilobytes)
        output = program.run(disk / "run", expect=2)
        assert "free some disk space" in output
        reasons.append("cannot write" if "error: cannot write" in output else "too small")
    assert set(reasons) == {"too small", "cannot write"} and reasons[-1] == "cannot write", reasons
    resize(20_000)
    program.run(disk / "run")
    runs.assert_same(disk / "run", finished)
