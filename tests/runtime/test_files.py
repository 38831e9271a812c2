"""Breaks when a damaged file is trusted, or a path in an object store is taken for a local one."""

import errno
import json
import os
import pathlib

import pytest
from etils import epath

from ltdd_jax.runtime import files
from ltdd_jax.types import UserError


def test_sealed_record_comes_back_and_every_change_is_found(tmp_path):
    path = tmp_path / "new" / "record.json"
    assert files.read_sealed(path) is None
    files.write_sealed(path, {"b": [1, 2.5], "a": {"c": "é"}})
    assert files.read_sealed(path) == {"b": [1, 2.5], "a": {"c": "é"}}
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            found = files.read_sealed(path)
        except files.DamagedFileError as error:
            assert str(path) in str(error)
        else:  # white space of JSON
            assert found == {"b": [1, 2.5], "a": {"c": "é"}}, place
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(files.DamagedFileError):
        files.read_sealed(path)


@pytest.mark.parametrize("value", [{"a": 1}, [], 3, None])
def test_record_without_checksum_is_damaged(tmp_path, value):
    (tmp_path / "record.json").write_text(json.dumps(value))
    with pytest.raises(files.DamagedFileError, match="no checksum"):
        files.read_sealed(tmp_path / "record.json")


PASSING = [
    *(errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
]


@pytest.mark.parametrize("number", PASSING)
def test_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, number):
    """Breaks when an intact file is moved aside because too many others were open."""
    path = epath.Path(tmp_path / "record.json")
    files.write_sealed(path, {"a": 1})
    for called in ("read_text", "stat"):
        with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
            owner = files.os if called == "stat" else type(path)
            patch.setattr(owner, called, make_failure(number))
            files.read_sealed(path)
        assert not isinstance(caught.value, files.DamagedFileError)
        expected = f"{path} cannot be read now: {os.strerror(number)}; mend that and run the same"
        assert str(caught.value).startswith(expected)
    assert files.read_sealed(path) == {"a": 1}


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ENOENT, None])
def test_other_failures_to_read_are_damage(tmp_path, monkeypatch, number):
    path = epath.Path(tmp_path / "record.json")
    files.write_sealed(path, {"a": 1})
    monkeypatch.setattr(type(path), "read_text", make_failure(number))
    with pytest.raises(files.DamagedFileError):
        files.read_sealed(path)


def make_failure(number):
    def fail(*arguments, **more):
        raise OSError(number, os.strerror(number)) if number else OSError("it ends early")

    return fail


def test_set_aside_never_overwrites(tmp_path):
    for expected in ("x.damaged-1", "x.damaged-2"):
        (tmp_path / "x").write_text(expected)
        assert files.set_aside(tmp_path / "x").name == expected
    assert [(tmp_path / f"x.damaged-{n}").read_text()[-1] for n in (1, 2)] == ["1", "2"]


def test_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    """Breaks when it is lost, or half of the new content stays beside it."""
    files.write_text(tmp_path / "x", "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot write .*x: No space left on device; free"):
        files.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_address_without_its_driver_names_the_extra(monkeypatch):
    def missing(protocol):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(files.fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"gs://b/r: .* pip install 'ltdd_jax\[gcs\]'"):
        files.resolve("gs://b/r")
    with pytest.raises(UserError, match="ftp:// addresses cannot be read here; use a local path"):
        files.resolve("ftp://b/r")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some disk space"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "change the permissions"),
        (errno.ENOTDIR, "a part of that path is a file"),
    ],
)
def test_remedy_fits_the_reason(number, remedy):
    message = str(files.cannot_write("x", OSError(number, os.strerror(number))))
    assert remedy in message
    longer = OSError(number, f"{os.strerror(number)} (90112 bytes are free)")
    assert remedy in str(files.cannot_write("x", longer))
    assert ("disk space" in message) == (number == errno.ENOSPC)


def test_paths_in_object_stores_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(files.fsspec, "get_filesystem_class", lambda protocol: object)
    assert str(files.resolve("gs://bucket/run")) == "gs://bucket/run"
    assert not files.is_local(files.resolve("gs://bucket/run") / "config.json")
    assert str(files.resolve("run")) == str(pathlib.Path("run").absolute())
    assert str(files.resolve("~/run")).startswith("/")


def test_reason_is_found_in_a_long_message():
    error = ValueError('RESOURCE_EXHAUSTED: Error opening "zarr": No space left on device [spec]')
    assert str(files.cannot_write("x", error)).startswith(
        "cannot write x: No space left on device;"
    )
