"""Breaks when two processes get into one directory, or when a dead one keeps the next out."""

import json
import resource
import subprocess
import sys
import time

import pytest

from ltdd_jax.runtime import lock
from ltdd_jax.types import UserError


def hold(directory):
    return lock.Lock(directory, "wait for it")


def edit(directory, **fields):
    path = directory / lock.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_second_holder_is_refused_with_owner_and_age(tmp_path):
    with hold(tmp_path / "run"):
        edit(tmp_path / "run", acquired=time.time() - 200)
        with pytest.raises(UserError, match=r"in use by process \d+ on .* since 3 min.*wait for"):
            hold(tmp_path / "run").__enter__()
    with hold(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_lock_of_a_killed_process_is_taken_over(tmp_path):
    program = (
        "import sys, os, signal, pathlib\n"
        "from ltdd_jax.runtime import lock\n"
        "lock.Lock(pathlib.Path(sys.argv[1]), '').__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert (tmp_path / lock.NAME).exists()
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "stale"),
    [
        ({"started": 1.0}, True),  # the number went to another process
        ({"pid": 2**22 + 1}, True),
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "refreshed": 0.0}, True),
        ({"namespace": -1}, False),  # a container of this host: its numbers mean nothing here
        ({"namespace": -1, "refreshed": 0.0}, True),
    ],
)
def test_who_counts_as_gone(tmp_path, fields, stale):
    with hold(tmp_path):
        edit(tmp_path, **fields)
        if stale:
            with hold(tmp_path):
                pass
        else:
            with pytest.raises(UserError, match="in use by"):
                hold(tmp_path).__enter__()


def test_holder_whose_lock_was_taken_leaves_that_of_the_new_one(tmp_path):
    first, second = hold(tmp_path), hold(tmp_path)
    first.__enter__()
    edit(tmp_path, pid=2**22 + 1)
    second.__enter__()
    first.__exit__(None, None, None)
    assert (tmp_path / lock.NAME).exists()
    second.__exit__(None, None, None)
    assert not (tmp_path / lock.NAME).exists()


def test_stealing_a_lock_that_changed_hands_gives_it_back(tmp_path):
    """Between reading a stale lock and removing it, another process may take it."""
    waiting = hold(tmp_path)
    with hold(tmp_path):
        lock._remove(waiting._path, "mine", {"token": "that of the stale one"})
        with pytest.raises(UserError, match="in use by"):
            waiting.__enter__()


def test_sign_of_life_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with hold(tmp_path):
        edit(tmp_path, refreshed=0.0)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if json.loads((tmp_path / lock.NAME).read_text())["refreshed"] > 1:
                break
            time.sleep(0.01)
        else:
            pytest.fail("not renewed")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"acquired": "x", "refreshed": 0}'])
def test_unreadable_lock_is_named(tmp_path, monkeypatch, text):
    """Breaks when a file without an owner's record ends in a traceback."""
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    (tmp_path / lock.NAME).write_text(text)
    with pytest.raises(UserError, match="delete the file"):
        hold(tmp_path).__enter__()


def test_failed_write_leaves_no_lock_behind(tmp_path):
    """Breaks when the next run, with space again, finds a lock that nobody holds."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # fails as late as on a full disk
    try:
        with pytest.raises(UserError, match=r"cannot write .*File too large.*free some"):
            hold(tmp_path).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
