"""Files of a run: replaced whole, sealed with a checksum where they are read again."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Mapping
from typing import Any

import fsspec
from etils import epath

from ltdd_jax.runtime import processes
from ltdd_jax.types import UserError

_CHECKSUM = "checksum"
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}  # protocol -> extra of this package
_FULL = "free some disk space or use another --workdir"
# What libraries bury in long messages, and what helps.
_REMEDIES = {
    "No space left on device": _FULL,
    "Disk quota exceeded": _FULL,
    "File too large": _FULL,
    "Read-only file system": "make it writable or use a --workdir on another file system",
    "Permission denied": "change the permissions of its directory or use another --workdir",
    "Operation not permitted": "change the permissions of its directory or use another --workdir",
    "Not a directory": "a part of that path is a file: use another --workdir",
    "File exists": "a part of that path is a file: use another --workdir",
    "Is a directory": "there is a directory of that name: move it or use another --workdir",
}
# Of the machine at this moment or of permissions: what cannot be read for them may be intact.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
            errno.ETIMEDOUT)  # fmt: skip


class DamagedFileError(UserError):
    """A file that is there but cannot be trusted."""


def is_local(path: epath.PathLike) -> bool:
    """Whether `path` is on a file system, not in an object store such as gs://."""
    return "://" not in str(path)


def resolve(path: str) -> epath.Path:
    """The absolute path of what a user wrote; an address such as gs://bucket/run stays.

    Raises:
      UserError: nothing is installed that reads such addresses.
    """
    if is_local(path):
        return epath.Path(path).expanduser().absolute()
    protocol = str(path).partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install 'ltdd_jax[{extra}]'" if extra else "use a local path, gs:// or s3://"
        raise UserError(f"{path}: {protocol}:// addresses cannot be read here; {remedy}") from error
    return epath.Path(path)


def free_bytes(path: epath.PathLike) -> int:
    """Space that is free where `path` lies or would lie; local paths only."""
    return shutil.disk_usage(_existing_part(path)).free


def identify_disk(path: epath.PathLike) -> int:
    """The same number for all paths whose space is shared; local paths only."""
    return _existing_part(path).stat().st_dev


def _existing_part(path):
    place = pathlib.Path(path)
    while not place.exists():
        place = place.parent
    return place


def write_bytes(path: epath.PathLike, content: bytes, *, writer: str = "") -> None:
    """Replaces a file in one step: readers find the old content or the new, never half of it.

    Of several processes of a run the first writes; the others return at once.

    Args:
      path: of the file.
      content: of the file.
      writer: tells this program apart from others that may write the file at the same moment,
        where no lock keeps them out.

    Raises:
      UserError: it cannot be written (full disk, no permission); the old content is intact.
    """
    if not processes.is_first():
        return
    path = epath.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_local(path):
            path.write_bytes(content)  # object stores show an object once it is whole
            return
        _replace(path, content, path.parent / temporary_name(path.name, writer))
    except OSError as error:
        raise cannot_write(path, error) from error


def _replace(path, content, temporary):
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or the name may reach the disk before the content
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first reason is the one to tell
            temporary.unlink(missing_ok=True)
        raise


def temporary_name(name: str, writer: str = "") -> str:
    """Name of the file that a killed `write_bytes` of a file called `name` leaves beside it."""
    return f".{name}.{writer}.tmp" if writer else f".{name}.tmp"


def write_text(path: epath.PathLike, text: str, *, writer: str = "") -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"), writer=writer)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes JSON with sorted keys atomically; raises ValueError on NaN and infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_sealed(path: epath.PathLike, value: Mapping[str, Any]) -> None:
    """`write_json` of an object with its checksum, for `read_sealed`."""
    write_json(path, seal(value))


def read_sealed(path: epath.PathLike) -> dict[str, Any] | None:
    """What `write_sealed` wrote, None if there is no such file.

    Raises:
      DamagedFileError: the file was cut or altered.
      UserError: it cannot be read now.
    """
    path = epath.Path(path)
    if not exists(path):
        return None
    try:
        return unseal(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise_if_unreadable(path, error)
        raise DamagedFileError(f"{path} is damaged ({error})") from error


def exists(path: epath.PathLike) -> bool:
    """Whether something is there; `Path.exists` of epath also says no where it cannot look.

    Raises:
      UserError: it cannot be looked at now.
    """
    if not is_local(path):
        return epath.Path(path).exists()
    try:
        os.stat(path)
    except OSError as error:
        raise_if_unreadable(path, error)
        return False
    return True


def raise_if_unreadable(path: epath.PathLike, error: BaseException) -> None:
    """For handlers of failed reads: says so where the reason is not damage, and returns if it is.

    Args:
      path: what was read.
      error: that, or what it led to.

    Raises:
      UserError: permissions, too many open files, or a disk or server that does not answer.
    """
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, OSError) and reason.errno in _PASSING:
            raise UserError(
                f"{path} cannot be read now: {reason.strerror}; mend that and run the same command "
                "again (nothing was moved)"
            ) from error
        reason = reason.__cause__ or reason.__context__


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a CRC-32 of its JSON under "checksum", as the last key."""
    return {**record, _CHECKSUM: _checksum(record)}


def unseal(record: Any) -> dict[str, Any]:
    """The record without its checksum; ValueError if it has none or another one."""
    if not isinstance(record, dict) or _CHECKSUM not in record:
        raise ValueError("it has no checksum")
    content = {name: value for name, value in record.items() if name != _CHECKSUM}
    if _checksum(content) != record[_CHECKSUM]:
        raise ValueError("its checksum differs: it was altered after it was written")
    return content


def set_aside(path: epath.PathLike) -> epath.Path:
    """Renames a damaged file or directory to NAME.damaged-N, N counting from 1; returns that."""
    path = epath.Path(path)
    number = 1
    while (target := path.parent / f"{path.name}.damaged-{number}").exists():
        number += 1
    try:
        return path.rename(target)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: epath.PathLike, error: BaseException) -> UserError:
    """The message for a write that failed, with the remedy for its reason."""
    text = str(error).strip()
    reason = getattr(error, "strerror", None) or next(
        (sign for sign in _REMEDIES if sign.lower() in text.lower()),
        (text or repr(error)).splitlines()[0][:300],
    )
    remedies = (text for sign, text in _REMEDIES.items() if sign.lower() in reason.lower())
    remedy = next(remedies, "use another --workdir")
    return UserError(
        f"cannot write {path}: {reason}; {remedy}, then run the same command again (what was saved "
        "before is intact)"
    )


def _checksum(record):
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{zlib.crc32(text.encode()):08x}"
