"""Files below a directory or in a tar or zip file, listed without being unpacked or trusted.

Nothing here follows a link unasked, waits for a pipe, or reads a file of unknown size.
"""

import bz2
import contextlib
import dataclasses
import functools
import gzip
import lzma
import os
import pathlib
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator

from etils import epath

from ltdd_jax.data.request import (
    Request,
    describe_error,
    is_regular_file,
    is_remote,
    list_names,
    show_name,
    throttle,
)
from ltdd_jax.errors import Interrupted, UserError

_MAX_HEADER = 2**20  # bytes of an extended tar header, which tarfile reads in one piece
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DECOMPRESSORS = (gzip.GzipFile, bz2.BZ2File, lzma.LZMAFile)
_ZIP_START = b"PK\x03\x04"
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit

Parts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder below the collection's top.

    Attributes:
      parts: path components.
      position: where it stands in the archive, so that reading goes forward; 0 in a directory.
      size: bytes; 0 for a folder.
      identity: equal for two names of one file.
      changed: when a file in a directory was last changed, in nanoseconds; else 0.
      read: returns the bytes; None for a folder.
      problem: why it cannot be read, such as "a link to nothing"; usually empty.
    """

    parts: Parts
    position: int = 0
    size: int = 0
    identity: object = None
    changed: int = 0
    read: Callable[[], bytes] | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.parts)

    @property
    def is_file(self) -> bool:
        """Whether it is anything but a folder."""
        return self.read is not None or bool(self.problem)


@dataclasses.dataclass(frozen=True)
class Collection:
    """What `open_collection` finds.

    Attributes:
      entries: files and folders, in no particular order.
      skipped: names of links to folders that were not followed.
    """

    entries: list[Entry]
    skipped: list[str]


@contextlib.contextmanager
def open_collection(request: Request) -> Iterator[Collection]:
    """Lists the entries of a directory, tar or zip file; they can be read inside the context.

    Raises:
      UserError: `request.path` is missing, is neither a directory nor an intact archive, or an
        archive holds more than the limits of `request` allow.
    """
    with contextlib.ExitStack() as stack:
        try:
            location = _check_location(request.path)
            if location.is_dir():
                collection = _list_directory(location, request)
            else:
                collection = _open_archive(location, request, stack)
        except (UserError, Interrupted, MemoryError):
            raise
        except Exception as error:  # file systems, tarfile and decompressors raise many types
            raise UserError(
                f"data.path={request.path} is no readable directory, tar or zip file "
                f"({describe_error(error)}); if it is a copy or a download, make it again."
            ) from error
        yield collection


def _check_location(path: str) -> epath.Path:
    location = epath.Path(path).expanduser()
    if not location.exists():
        raise UserError(
            f"data.path={path} does not exist; give a directory, a .tar or a .zip file."
        )
    # Opening a pipe would wait for somebody to write.
    if not location.is_dir() and not is_regular_file(location):
        raise UserError(
            f"data.path={path} is no regular file; give a directory, a .tar or a .zip file."
        )
    return location


def _open_archive(
    location: epath.Path, request: Request, stack: contextlib.ExitStack
) -> Collection:
    stream = stack.enter_context(location.open("rb"))
    is_zip = stream.read(len(_ZIP_START)) == _ZIP_START
    stream.seek(0)
    if is_zip:
        return _list_zip(stack.enter_context(zipfile.ZipFile(stream)), request)
    return _list_archive(
        stack.enter_context(tarfile.open(fileobj=stream, tarinfo=_Member)), request
    )


def _list_directory(location: epath.Path, request: Request) -> Collection:
    if is_remote(location):
        return Collection(list(_walk_remote(location, request)), [])
    skipped: list[str] = []
    entries = list(_walk(os.fspath(location), request, skipped))
    return Collection(entries, skipped)


def _walk(top: str, request: Request, skipped: list[str]) -> Iterator[Entry]:
    """Everything below `top`; a folder is entered once on the way to it and once per class."""
    tell = throttle(request.say)
    pending: list[tuple[str, Parts, tuple]] = [(top, (), ())]
    entered: set[tuple] = set()
    loops, num_entries = [], 0
    while pending:
        folder, parts, ancestors = pending.pop()
        request.check()
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in ancestors:
            loops.append("/".join(parts))
            continue
        if (parts[:3], here) in entered:  # as deep as a class can lie: root, split, class
            continue
        entered.add((parts[:3], here))
        if parts:
            yield Entry(parts)
        with os.scandir(folder) as children:
            for child in children:
                num_entries += 1
                name = (*parts, child.name)
                if not _is_folder(child):
                    yield _describe_file(child, name)
                elif child.is_symlink() and not request.follow_links:
                    skipped.append("/".join(name))
                else:
                    pending.append((child.path, name, (*ancestors, here)))
        tell(f"listing {request.path}: {num_entries} files so far")
    if loops:
        request.warn(
            f"{request.path}: {len(loops)} links lead back to a folder that they lie in and were "
            f"left out: {list_names(loops)}"
        )


def _is_folder(child: os.DirEntry) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a circle of links
        return False


def _describe_file(child: os.DirEntry, parts: Parts) -> Entry:
    try:
        status = child.stat()
    except OSError:
        return Entry(parts, problem="a link to nothing")
    if not stat.S_ISREG(status.st_mode):
        return Entry(parts, problem="no regular file")
    return Entry(
        parts,
        size=status.st_size,
        identity=(status.st_dev, status.st_ino),
        changed=status.st_mtime_ns,
        read=functools.partial(_read_file, child.path, status.st_size),
    )


def _read_file(path: str, size: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(size)  # some files of the kernel have no size and no end


def _walk_remote(top: epath.Path, request: Request) -> Iterator[Entry]:
    pending: list[tuple[epath.Path, Parts]] = [(top, ())]
    while pending:
        folder, parts = pending.pop()
        request.check()
        for child in folder.iterdir():
            name = (*parts, child.name)
            if child.is_dir():
                yield Entry(name)
                pending.append((child, name))
            else:
                yield Entry(
                    name, size=child.stat().length, identity=str(child), read=child.read_bytes
                )


class _Member(tarfile.TarInfo):
    """A tar header that cannot make tarfile read without end."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _HEADERS and member.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header that speaks of {member.size} bytes")
        return member


def _list_archive(archive: tarfile.TarFile, request: Request) -> Collection:
    members = _read_headers(archive, request)
    # tarfile takes a damaged header for the end of the archive and says nothing.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged after {len(members)} entries")
    by_name = {_normal(member.name): member for member in members}  # the last of a name counts
    entries, skipped = [], []
    for name, member in by_name.items():
        parts = _split(name)
        if not parts:
            continue
        target, problem = _resolve(member, by_name)
        if target is not None and target.isdir():
            if target is not member:
                skipped.append("/".join(parts))
            else:
                entries.append(Entry(parts))
        elif target is None or not target.isreg():
            entries.append(Entry(parts, problem=problem or "no regular file"))
        else:
            read = functools.partial(_read_member, archive, target)
            position = target.offset_data
            entries.append(Entry(parts, position, target.size, position, read=read))
    return Collection(entries, skipped)


def _list_zip(archive: zipfile.ZipFile, request: Request) -> Collection:
    members = {_normal(member.filename): member for member in archive.infolist()}
    if members and all(name.endswith(".npy") for name in members):
        raise UserError(
            f"data.path={request.path} is a file of arrays, not of pictures; set "
            "--config.data.source=npz."
        )
    entries, total = [], 0
    for name, member in members.items():
        request.check()
        check_size(member.filename, member.file_size, request)
        total += member.file_size
        check_total(total, request)
        parts = _split(name)
        if not parts:
            continue
        problem = _find_zip_problem(member)
        if member.is_dir():
            entries.append(Entry(parts))
        elif problem:
            entries.append(Entry(parts, problem=problem))
        else:
            read = functools.partial(_read_zip_member, archive, member)
            position = member.header_offset
            entries.append(Entry(parts, position, member.file_size, position, read=read))
    return Collection(entries, [])


def _find_zip_problem(member: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(member.external_attr >> 16):  # where zip keeps the mode of Unix
        return "a link in a zip file"
    if member.flag_bits & 1:
        return "encrypted"
    return "" if member.compress_type in _ZIP_METHODS else "neither stored nor deflated"


def _read_zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as stream:
        data = stream.read(member.file_size)  # without a size it would unpack without a limit
    if len(data) != member.file_size:
        raise OSError("it is cut off")
    return data


def _read_headers(archive: tarfile.TarFile, request: Request) -> list[tarfile.TarInfo]:
    """All members; in a compressed archive no member is passed before its size was checked."""
    compressed = isinstance(archive.fileobj, _DECOMPRESSORS)
    tell = throttle(request.say)
    members: list[tarfile.TarInfo] = []
    total, end = 0, -1
    for member in archive:
        request.check()
        if archive.offset <= end:  # a negative size would lead back to the same member for ever
            raise tarfile.ReadError(f"damaged after {len(members)} entries")
        end = archive.offset
        members.append(member)
        total += member.size
        if compressed:
            check_size(member.name, member.size, request)
            check_total(total, request)
        tell(f"listing {request.path}: {len(members)} files, {total / 1e6:.0f} MB so far")
    return members


def check_size(name: str, size: int, request: Request) -> None:
    """Raises UserError if a file is larger than `request.max_file_mb`."""
    if size > request.max_file_mb * 1e6:
        raise UserError(
            f"{request.path}: {show_name(name)} has {size / 1e6:,.0f} MB, more than "
            f"--config.data.max_file_mb={request.max_file_mb} allows; remove it or raise the limit."
        )


def check_total(size: int, request: Request) -> None:
    """Raises UserError if files have more than `request.max_total_gb` together."""
    if size > request.max_total_gb * 1e9:
        raise UserError(
            f"{request.path} has more than the {request.max_total_gb} GB that "
            "--config.data.max_total_gb allows; remove files or raise the limit."
        )


def _normal(name: str) -> str:
    return posixpath.normpath(name)


def _split(name: str) -> Parts:
    """Without the root of an absolute name; empty for the top itself, which tar may list as "."."""
    return tuple(part for part in pathlib.PurePosixPath(name).parts if part != "/")


def _resolve(
    member: tarfile.TarInfo, by_name: dict[str, tarfile.TarInfo]
) -> tuple[tarfile.TarInfo | None, str]:
    """The member that a link of the archive leads to, or None and the reason."""
    visited = set()
    while member.issym() or member.islnk():
        name = _normal(member.name)
        if name in visited:
            return None, "a link that leads back to itself"
        visited.add(name)
        folder = posixpath.dirname(name) if member.issym() else ""
        target = by_name.get(_normal(posixpath.join(folder, member.linkname)))
        if target is None:
            return None, "a link to nothing in the archive"
        member = target
    return member, ""


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    data = b"" if stream is None else stream.read()
    if len(data) != member.size:
        raise OSError("it is cut off")
    return data
