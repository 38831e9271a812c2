"""The user's own pictures: class folders in a directory or in a tar file, never unpacked to disk.

Layout: PATH/{train,test}/<class>/<picture>, where one folder more may stand around train and test
and pictures may lie deeper inside their class folder. The class folders of train, in alphabetical
order, define the labels; the pictures of a class are sorted by name.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import lzma
import pathlib
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tqdm
from absl import logging
from etils import epath
from PIL import Image

from ltdd_jax.types import UserError

_SPLITS = ("train", "test")
_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_BLOCK = 256  # pictures decoded together; bounds the undecoded bytes in memory
_READ_ERRORS = (OSError, EOFError, KeyError, tarfile.TarError, zlib.error, lzma.LZMAError)

Parts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A file or folder below the collection's top.

    Attributes:
      parts: path components.
      position: where it stands in the tar file, so that reading goes forward; 0 in a directory.
      read: returns the bytes; None for a folder.
    """

    parts: Parts
    position: int
    read: Callable[[], bytes] | None

    @property
    def name(self) -> str:
        return "/".join(self.parts)


def read_folder(
    path: str, split: str, *, image_size: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Reads one split of a picture collection.

    Every picture becomes RGB, greyscale ones too; transparency is dropped and an EXIF orientation
    is not applied. Resizing is to the exact square, whatever the aspect ratio, with Pillow's
    bilinear filter (which averages over the covered area when it shrinks).

    Args:
      path: a directory, or a .tar or compressed .tar file.
      split: "train" or "test".
      image_size: side in pixels; 0 keeps the size, which must then be one square for all pictures.

    Returns:
      images uint8 [N, H, W, 3] sorted by class and name, labels int32 [N], and the class names.

    Raises:
      UserError: missing path, split, class or picture; classes of test that differ from those of
        train; a picture that cannot be decoded or has another size.
    """
    with _open_collection(path) as entries:
        classes = _list_classes(path, entries)
        names = tuple(classes["train"])
        pictures = [entry for name in names for entry in classes[split][name]]
        counts = [len(classes[split][name]) for name in names]
        first = classes["train"][names[0]][0]
        images = _decode_all(pictures, first, path, image_size, f"Reading {split} pictures")
    return images, np.repeat(np.arange(len(names), dtype=np.int32), counts), names


@contextlib.contextmanager
def _open_collection(path: str) -> Iterator[list[_Entry]]:
    """Lists the entries of the directory or tar file; they can be read inside the context."""
    location = epath.Path(path).expanduser()
    if not location.exists():
        raise UserError(f"data.path={path} does not exist; give a directory or a .tar file.")
    with contextlib.ExitStack() as stack:
        try:
            if location.is_dir():
                entries = list(_walk(location, ()))
            else:
                stream = stack.enter_context(location.open("rb"))
                archive = stack.enter_context(tarfile.open(fileobj=stream))
                entries = _list_archive(archive)
        except _READ_ERRORS as error:
            raise UserError(
                f"data.path={path} is no readable directory or tar file "
                f"({str(error).splitlines()[0]}); if it is a copy or a download, make it again."
            ) from error
        yield entries


def _list_archive(archive: tarfile.TarFile) -> list[_Entry]:
    entries = [
        _Entry(
            parts=tuple(part for part in pathlib.PurePosixPath(member.name).parts if part != "/"),
            position=member.offset_data,
            read=None if member.isdir() else functools.partial(_read_member, archive, member),
        )
        for member in archive.getmembers()
    ]
    # tarfile takes a damaged header for the end of the archive and says nothing.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged after {len(entries)} entries")
    return list({entry.parts: entry for entry in entries}.values())  # the last of a name counts


def _walk(folder: epath.Path, parts: Parts) -> Iterator[_Entry]:
    for child in folder.iterdir():
        child_parts = (*parts, child.name)
        if child.is_dir():
            yield _Entry(child_parts, 0, None)
            yield from _walk(child, child_parts)
        else:
            yield _Entry(child_parts, 0, child.read_bytes)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)  # follows links inside the archive
    if stream is None:
        raise OSError("it is not a regular file")
    return stream.read()


def _list_classes(path: str, entries: list[_Entry]) -> dict[str, dict[str, list[_Entry]]]:
    """Sorts the entries into split -> class -> pictures, and checks that nothing is missing."""
    # macOS adds "._x" files and __MACOSX to archives; other dot files are no pictures either.
    visible = [e for e in entries if not any(p[0] == "." or p == "__MACOSX" for p in e.parts)]
    root = _find_root(path, visible)
    classes: dict[str, dict[str, list[_Entry]]] = {split: {} for split in _SPLITS}
    ignored = []
    for entry in visible:
        parts = entry.parts[len(root) :]
        is_file = entry.read is not None
        inside = entry.parts[: len(root)] == root and len(parts) >= (3 if is_file else 2)
        if not inside or parts[0] not in _SPLITS:
            continue
        pictures = classes[parts[0]].setdefault(parts[1], [])
        if is_file and pathlib.PurePosixPath(parts[-1]).suffix.lower() in _SUFFIXES:
            pictures.append(entry)
        elif is_file:
            ignored.append(entry.name)
    if ignored:
        example = min(ignored)
        logging.warning("%s: ignored %d files such as %s", path, len(ignored), example)
    _check_classes(path, classes)
    return {
        split: {name: sorted(found[name], key=lambda entry: entry.parts) for name in sorted(found)}
        for split, found in classes.items()
    }


def _find_root(path: str, entries: list[_Entry]) -> Parts:
    """The folder that holds train and test: the top, or the one folder in it that has them."""
    found: dict[Parts, set[str]] = {}
    for entry in entries:
        for depth in range(min(2, len(entry.parts))):
            if entry.parts[depth] in _SPLITS:
                found.setdefault(entry.parts[:depth], set()).add(entry.parts[depth])
                break
    if not found:
        raise UserError(
            f"{path} has neither train/ nor test/; it must hold both, with one folder per class."
        )
    root, *others = sorted(found)
    if root and others:
        raise UserError(
            f"{path} has train/ or test/ in both {root[0]}/ and {others[0][0]}/; give the path of "
            "one of them."
        )
    missing = set(_SPLITS) - found[root]
    if missing:
        raise UserError(
            f"{'/'.join((path, *root))} has no folder {missing.pop()}/; it must hold train/ and "
            "test/, each with one folder per class."
        )
    return root


def _check_classes(path: str, classes: dict[str, dict[str, list[_Entry]]]) -> None:
    for split, found in classes.items():
        if not found:
            raise UserError(
                f"{path}: {split}/ has no class folder; put one folder per class there."
            )
        for name in sorted(found):
            if not found[name]:
                raise UserError(
                    f"{path}: class {name!r} of {split}/ has no picture (*.jpg, *.png, ...); add "
                    "some or remove the class from train/ and test/."
                )
    for split, other in (_SPLITS, _SPLITS[::-1]):
        extra = sorted(set(classes[split]) - set(classes[other]))
        if extra:
            raise UserError(
                f"{path}: class {extra[0]!r} is in {split}/ but not in {other}/; both must have "
                "the same class folders."
            )


def _decode_all(
    pictures: list[_Entry], first: _Entry, path: str, image_size: int, description: str
) -> np.ndarray:
    """Decodes the pictures to uint8 [N, S, S, 3], S = `image_size` or the side of `first`."""

    def decode(item: tuple[str, bytes]) -> np.ndarray:
        return _decode(*item, path, image_size)

    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor() as pool,  # Pillow decodes without the GIL
        tqdm.tqdm(
            total=len(pictures), desc=description, unit="img", disable=None, delay=1.0
        ) as bar,
    ):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        size = decode((first.name, _read(first, path))).shape
        if size[0] != size[1]:
            raise UserError(
                f"{path}: {first.name} is {size[1]}x{size[0]} pixels, but square pictures are "
                "needed; set --config.data.image_size=SIDE to resize all."
            )
        images = np.empty((len(pictures), *size), np.uint8)
        order = sorted(range(len(pictures)), key=lambda row: pictures[row].position)
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            block = [(pictures[row].name, _read(pictures[row], path)) for row in rows]
            for row, image in zip(rows, pool.map(decode, block), strict=True):
                if image.shape != size:
                    raise UserError(
                        f"{path}: {pictures[row].name} is {image.shape[1]}x{image.shape[0]} "
                        f"pixels, but {first.name} is {size[1]}x{size[0]}; set "
                        "--config.data.image_size=SIDE to resize all."
                    )
                images[row] = image
            bar.update(len(rows))
    return images


def _read(entry: _Entry, path: str) -> bytes:
    try:
        return entry.read()
    except _READ_ERRORS as error:
        raise UserError(f"{path}: {entry.name} cannot be read ({error}); replace it.") from error


def _decode(name: str, data: bytes, path: str, image_size: int) -> np.ndarray:
    """One picture as uint8 [H, W, 3]."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            mode = picture.mode
            if mode == "P" and "transparency" in picture.info:
                picture = picture.convert("RGBA")  # Pillow warns on the direct way to RGB
            picture = picture.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many types, warnings as errors included
        raise UserError(
            f"{path}: {name} cannot be decoded ({error}); replace or remove it."
        ) from error
    if mode.startswith(("I", "F")):
        raise UserError(
            f"{path}: {name} has more than 8 bits per channel (mode {mode}), which would be cut "
            "off; convert it to 8 bits."
        )
    if image_size:
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
