"""Decoded pictures in one file, for sets that do not fit in memory; only rows asked for are read.

A directory holds `pixels` (uint8, one row after the other), written in pieces, and `record.json`
with the SHA-256 of each finished piece. An interrupted writing goes on where it stopped; a piece
that is damaged later is made again. Read with pread and not mapped, so that a row costs its own
bytes of memory and a failing disk raises an error instead of ending the process.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ltdd_jax.data.request import Request, describe_error
from ltdd_jax.errors import UserError

STREAM_BYTES = 2**31  # of pixels, above which memory="auto" streams
_PIECE_BYTES = 2**26  # written between two notes of how far it is; the memory that writing takes
_FORMAT = 1
_POLL_SECONDS = 0.5


class DiskImages:
    """Images in a file, indexed like the array uint8 [N, H, W, C]; nothing is kept in memory.

    Equal where the file and the rows are, so that a compiled program serves equal ones.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, path: pathlib.Path, image_shape: tuple[int, ...], rows: np.ndarray, content: str
    ):
        self._path, self._image_shape, self._content = path, tuple(image_shape), content
        self._rows = np.asarray(rows, np.int64)
        self._descriptor = os.open(path, os.O_RDONLY)

    def __del__(self):
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._descriptor)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self._rows), *self._image_shape)

    @property
    def size(self) -> int:
        """Number of pixel values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: np.ndarray | slice) -> "DiskImages":
        """The images at `rows`, in that order, without reading them."""
        return DiskImages(self._path, self._image_shape, self._rows[rows], self._content)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads rows: an int, a slice, a mask or an array of row numbers of any shape.

        Raises:
          UserError: the file can no longer be read.
        """
        wanted = np.asarray(
            self._rows[np.asarray(index) if not isinstance(index, slice) else index]
        )
        flat = wanted.reshape(-1)
        result = np.empty((len(flat), *self._image_shape), np.uint8)
        starts = np.flatnonzero(np.diff(flat, prepend=-2) != 1)  # of runs of neighbours
        ends = np.append(starts[1:], len(flat))[: len(starts)]  # no run, no end
        for begin, end in zip(starts, ends, strict=True):
            self._read(int(flat[begin]), result[begin:end])
        return result.reshape((*wanted.shape, *self._image_shape))

    def _read(self, row: int, target: np.ndarray) -> None:
        view, position = memoryview(target.data).cast("B"), row * math.prod(self._image_shape)
        while view:
            try:
                count = os.preadv(self._descriptor, [view], position)
            except OSError as error:
                raise _cannot(self._path, "read", error) from error
            if not count:
                raise UserError(f"{self._path} is cut off; delete its directory and run again.")
            view, position = view[count:], position + count

    @functools.cached_property
    def _key(self) -> tuple:
        digest = hashlib.sha256(self._rows.tobytes()).hexdigest()
        return (str(self._path), self._content, self._image_shape, digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiskImages) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise UserError(
            "all training images are wanted at once, but they are read from disk; set "
            "--config.data.memory=load."
        )


Images = np.ndarray | DiskImages


def take(images: Any, rows: np.ndarray | slice) -> Any:
    """`images[rows]`; of images on disk, preprocessed or not, nothing is read."""
    return images[rows] if isinstance(images, np.ndarray) else images.take(rows)


def iterate_blocks(images: Images, values: int = 2**24) -> Iterator[np.ndarray]:
    """The images in order, in arrays of about so many pixel values."""
    step = max(1, values // max(1, math.prod(images.shape[1:])))
    return (images[start : start + step] for start in range(0, len(images), step))


def is_streamed(request: Request, num_values: int) -> bool:
    """Whether that many pixel values go through the disk; never asks how much memory is free."""
    if request.memory == "auto":
        return num_values > STREAM_BYTES
    return request.memory == "stream"


def write(
    request: Request,
    identity: dict[str, Any],
    num: int,
    image_shape: tuple[int, ...],
    read_piece: Callable[[int, int], np.ndarray],
) -> DiskImages:
    """The images on disk, those of earlier if they are there and good.

    Args:
      request: `cache` is the directory for all sets, "" that of the user; `say` and `check`.
      identity: what the pixels are made of, fit for JSON; other contents are other directories.
      num: images.
      image_shape: (H, W, C).
      read_piece: (first, end) -> uint8 [end - first, H, W, C], called in ascending order.

    Raises:
      UserError: the directory cannot be written, or the disk has too little room.
    """
    shape = (num, *image_shape)
    record = {"format": _FORMAT, "identity": identity, "shape": list(shape)}
    text = json.dumps(record, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    directory = find_cache(request.cache) / name
    per_piece = max(1, _PIECE_BYTES // math.prod(image_shape))
    bounds = [(start, min(start + per_piece, num)) for start in range(0, num, per_piece)]
    pixels = directory / "pixels"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _only_writer(directory, request), open(pixels, "ab"), open(pixels, "r+b") as file:
            sums = _find_good_pieces(directory, file, text, bounds, math.prod(image_shape), request)
            if len(sums) < len(bounds):
                _check_room(directory, math.prod(shape), pixels.stat().st_size)
            for start, end in bounds:
                if str(start) in sums:
                    continue
                request.check()
                piece = np.ascontiguousarray(read_piece(start, end), np.uint8)
                file.seek(start * math.prod(image_shape))
                file.write(piece.data)
                file.flush()
                os.fsync(file.fileno())
                sums[str(start)] = hashlib.sha256(piece.data).hexdigest()
                _write_record(directory, {"made_of": text, "sums": sums})
                request.say(f"decoded pictures: {end} of {num} are in {directory}")
    except OSError as error:
        raise _cannot(directory, "written", error) from error
    content = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
    return DiskImages(pixels, image_shape, np.arange(num), content)


def find_cache(wanted: str) -> pathlib.Path:
    """Directory of all decoded sets: `wanted`, or ltdd_jax/pictures in the user's cache.

    Raises:
      UserError: it is no directory of this machine.
    """
    if "://" in wanted:
        raise UserError(f"data.cache={wanted} is remote; give a directory of this machine.")
    if wanted:
        return pathlib.Path(wanted).expanduser()
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return home / "ltdd_jax" / "pictures"


@contextlib.contextmanager
def _only_writer(directory: pathlib.Path, request: Request) -> Iterator[None]:
    """Waits until no other process writes there."""
    with open(directory / "lock", "w") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    request.say(f"waiting for the process that decodes pictures to {directory}")
                told = True
                request.check()
                time.sleep(_POLL_SECONDS)
        yield


def _find_good_pieces(directory, file, text, bounds, row_bytes, request) -> dict[str, str]:
    """First row -> SHA-256 of the pieces that are there undamaged."""
    try:
        record = json.loads((directory / "record.json").read_text())
        sums = dict(record["sums"]) if record["made_of"] == text else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        sums = {}
    good = {}
    for start, end in bounds:
        if str(start) not in sums:
            continue
        request.check()
        file.seek(start * row_bytes)
        if hashlib.sha256(file.read((end - start) * row_bytes)).hexdigest() == sums[str(start)]:
            good[str(start)] = sums[str(start)]
        else:
            request.warn(f"decoded pictures {start} to {end - 1} in {directory} are damaged")
    if good:
        last = max((end for start, end in bounds if str(start) in good), default=0)
        request.say(f"decoded pictures are in {directory}, the first {last:,} of them checked")
    return good


def _check_room(directory: pathlib.Path, wanted: int, there: int) -> None:
    free = shutil.disk_usage(directory).free
    if wanted - there > free:
        raise UserError(
            f"the decoded pictures need {(wanted - there) / 1e9:.1f} GB in {directory} and "
            f"{free / 1e9:.1f} GB are free; give another directory as --config.data.cache=DIR."
        )


def _write_record(directory: pathlib.Path, record: dict[str, Any]) -> None:
    temporary = directory / ".record.json"
    temporary.write_text(json.dumps(record))
    temporary.replace(directory / "record.json")


def _cannot(path: pathlib.Path, what: str, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be {what} ({describe_error(error)}); give another directory as "
        "--config.data.cache=DIR, or set --config.data.memory=load."
    )
