"""One process at a time: a lock file that names its owner.

A lock is stale, and taken over, when its owner ran on this machine and is gone, or when an owner
elsewhere gave no sign of life for some minutes. A file system creates and renames files
atomically; an object store (gs://) does not, so there two processes that start within the same
second may both get in.
"""

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from typing import Any

import psutil
from etils import epath

from ltdd_jax.runtime import files
from ltdd_jax.types import UserError

NAME = ".lock"
BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0  # without a sign of life from another machine
_ATTEMPTS = 20
_TIMES = ("acquired", "refreshed")  # what the age of every owner is told from


class Lock:
    """Context manager that holds a directory.

    Args:
      directory: made if absent.
      remedy: what the user may do when somebody else holds it.

    Raises (on entry):
      UserError: it is held by another process, named with its age; or it cannot be written.
    """

    def __init__(self, directory: epath.Path, remedy: str):
        self._path = epath.Path(directory) / NAME
        self._remedy = remedy
        self._record = _describe_self()
        self._released = threading.Event()

    def __enter__(self):
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise files.cannot_write(self._path, error) from error
        self._beat = threading.Thread(target=self._keep_beating, name="lock", daemon=True)
        self._beat.start()
        return self

    def __exit__(self, *exception):
        self._released.set()
        self._beat.join()
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._path.unlink()

    def _acquire(self):
        for _ in range(_ATTEMPTS):
            if _create(self._path, self._record):
                return
            owner = _read(self._path)
            if owner is None:  # just released, or just being written
                time.sleep(0.1)
            elif _is_stale(owner):
                _remove(self._path, self._record["token"], owner)
            else:
                raise UserError(_refusal(self._path, owner, self._remedy))
        raise UserError(
            f"{self._path} is damaged or changes hands all the time; if no other process uses "
            "that directory, delete the file"
        )

    def _is_mine(self):
        return (_read(self._path) or {}).get("token") == self._record["token"]

    def _keep_beating(self):
        while not self._released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError, UserError):  # a full disk must not end the run here
                if self._is_mine():
                    self._record["refreshed"] = time.time()
                    files.write_text(self._path, json.dumps(self._record))


def _create(path, record):
    """Whether the lock file could be made; never touches an existing one."""
    record["refreshed"] = time.time()
    text = json.dumps(record)
    if not files.is_local(path):
        if path.exists():
            return False
        path.write_text(text)
        return True
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with open(descriptor, "w") as file:
            file.write(text)
    except OSError:  # a full disk: without an owner in it, the file would keep everybody out
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return True


def _remove(path, token, stale):
    """Takes a stale lock away, unless another process was faster and holds it now."""
    aside = path.parent / f"{NAME}.{token}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        try:
            found = json.loads(aside.read_text()).get("token")
        except ValueError:
            found = None
        if found == stale.get("token"):
            aside.unlink()
        else:
            aside.rename(path)


def _read(path) -> dict[str, Any] | None:
    """The owner's record; None for what is no such record."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    is_whole = isinstance(found, dict) and all(
        isinstance(found.get(name), (int, float)) for name in _TIMES
    )
    return found if is_whole else None


def _refusal(path, owner, remedy):
    now = time.time()
    return (
        f"{path.parent} is in use by process {owner.get('pid')} on "
        f"{owner.get('host')} ({owner.get('command')}) since {_age(now - owner['acquired'])}, "
        f"last sign of life {_age(now - owner['refreshed'])} ago; {remedy}"
        + ("" if _is_here(owner) else f"; if that machine is gone, delete {path}")
    )


def _describe_self():
    now = time.time()
    return {
        "token": uuid.uuid4().hex,
        "host": platform.node(),
        "namespace": _process_namespace(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "command": " ".join(sys.argv)[:200],
        "acquired": now,
        "refreshed": now,
    }


def _process_namespace():
    """Tells containers of one host apart: process numbers mean something within one only."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _is_here(owner):
    return (owner.get("host"), owner.get("namespace")) == (platform.node(), _process_namespace())


def _is_stale(owner):
    try:
        if not _is_here(owner):
            return time.time() - owner["refreshed"] > STALE_SECONDS
        # A number given to a new process has another start time.
        return abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) > 2.0
    except psutil.NoSuchProcess:
        return True
    except (KeyError, TypeError, psutil.Error):
        return False


def _age(seconds):
    seconds = max(int(seconds), 0)
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
