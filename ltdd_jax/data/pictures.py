"""Picture files to arrays: decoding, turning upright, resizing, and a list of what is wrong."""

import collections
import concurrent.futures
import contextlib
import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps

from ltdd_jax.data import disk_images
from ltdd_jax.data.collection import Entry
from ltdd_jax.data.request import Request, check_memory, list_names, throttle
from ltdd_jax.errors import UserError

_BLOCK = 256  # pictures decoded together, fewer where they are large
_BLOCK_BYTES = 2**28  # undecoded bytes in memory, unless a single file has more
_ENOUGH = 1000  # pictures with problems after which no more are looked for
_COPIES = 5  # bytes per value: the pixel and the float32 that the network will be given


class _DeepPictureError(Exception):
    """A picture with more than 8 bits per channel."""


def decode_all(pictures: Sequence[Entry], request: Request) -> disk_images.Images:
    """Decodes all pictures, in memory or on disk; names every one that cannot be used.

    On disk those are named that are in the first piece which has any.

    Every picture becomes RGB, greyscale ones too; transparency is dropped. An EXIF orientation is
    applied, as viewers do. Of an animation, the first picture counts. Resizing is to the exact
    square, whatever the aspect ratio, with Pillow's bilinear filter (which averages over the
    covered area when it shrinks).

    Args:
      pictures: at least one file.
      request: its `image_size` is the side in pixels; 0 keeps the size, which must then be the
        same for all.

    Returns:
      uint8 [N, H, W, 3], in the order of `pictures`.

    Raises:
      UserError: pictures that cannot be decoded or have unequal sizes, or too little memory or
        room on disk.
    """
    side = request.image_size
    first = (side, side, 3) if side else _measure_first(pictures)
    if first is None or not disk_images.is_streamed(request, len(pictures) * math.prod(first)):
        return _decode(pictures, request)
    order = sorted(range(len(pictures)), key=lambda row: pictures[row].position)
    digest = hashlib.sha256()
    for row in order:
        entry = pictures[row]
        digest.update(repr((entry.parts, entry.size, entry.position, entry.changed)).encode())
    identity = {
        "path": os.path.abspath(os.path.expanduser(request.path)),
        "changed": _find_change(request.path),
        "pictures": digest.hexdigest(),
        "image_size": side,
    }

    def read_piece(start: int, end: int) -> np.ndarray:
        return _decode([pictures[row] for row in order[start:end]], request, first)

    found = disk_images.write(request, identity, len(pictures), first, read_piece)
    return found.take(np.argsort(order))


def _find_change(path: str) -> int:
    """When an archive was last changed, nanoseconds; 0 where that is not known."""
    try:
        found = os.path.expanduser(path)
        return os.stat(found).st_mtime_ns if os.path.isfile(found) else 0
    except OSError:
        return 0


def _measure_first(pictures: Sequence[Entry]) -> tuple[int, int, int] | None:
    """The shape of the picture that is read first; None if it cannot be decoded."""
    found = _try_decode(_read(min(pictures, key=lambda entry: entry.position)), 0)
    return found.shape if isinstance(found, np.ndarray) else None


def _decode(
    pictures: Sequence[Entry], request: Request, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """As `decode_all`, in memory; `shape` is that of all, the first one's if None."""
    images: np.ndarray | None = None
    sizes: dict[tuple[int, ...], list[str]] = collections.defaultdict(list)
    broken: list[str] = []
    deep: list[str] = []
    tell = throttle(request.say)
    for done, (row, result) in enumerate(_decode_blocks(pictures, request), start=1):
        tell(f"reading {request.path}: {done} of {len(pictures)} pictures")
        name = pictures[row].name
        if isinstance(result, np.ndarray):
            if images is None:
                images = _allocate(len(pictures), shape or result.shape, request)
            sizes[result.shape].append(name)
            if result.shape == images.shape[1:]:
                images[row] = result
        else:
            (deep if isinstance(result, _DeepPictureError) else broken).append(name)
        if done - max(map(len, sizes.values()), default=0) >= _ENOUGH:
            break
    _report(sorted(broken), sorted(deep), sizes, request.path, shape)
    assert images is not None  # or there would have been something to report
    return images


def measure_sides(pictures: Sequence[Entry], limit: int = 200) -> list[int]:
    """The shorter side in pixels of up to `limit` pictures, spread evenly; of those that open."""
    sides = []
    for entry in pictures[:: max(1, -(-len(pictures) // limit))]:
        data = _read(entry)
        if isinstance(data, bytes):
            with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as picture:
                sides.append(min(picture.size))
    return sides


def _decode_blocks(
    pictures: Sequence[Entry], request: Request
) -> Iterator[tuple[int, np.ndarray | Exception]]:
    """The position of every picture, in the order of the archive, and its pixels or the error."""
    order = sorted(range(len(pictures)), key=lambda row: pictures[row].position)
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor() as pool,  # Pillow decodes without the GIL
    ):
        warnings.simplefilter("ignore")  # such as Pillow's on damaged EXIF data
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        while order:
            request.check()
            rows: list[int] = []
            num_bytes = 0
            while order[len(rows) :][:1] and len(rows) < _BLOCK and num_bytes < _BLOCK_BYTES:
                num_bytes += pictures[order[len(rows)]].size
                rows.append(order[len(rows)])
            del order[: len(rows)]
            files = [_read(pictures[row]) for row in rows]  # an archive is read by one thread
            decoded = pool.map(lambda data: _try_decode(data, request.image_size), files)
            yield from zip(rows, decoded, strict=True)


def _read(entry: Entry) -> bytes | Exception:
    assert entry.read is not None  # a folder is no picture
    try:
        return entry.read()
    except Exception as error:  # file systems, tarfile and decompressors raise many types
        return error


def _try_decode(data: bytes | Exception, image_size: int) -> np.ndarray | Exception:
    if isinstance(data, Exception):
        return data
    try:
        return _decode_one(data, image_size)
    except Exception as error:  # Pillow's decoders raise many types, warnings as errors included
        return error


def _decode_one(data: bytes, image_size: int) -> np.ndarray:
    """One picture as uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode.startswith(("I", "F")):  # 8 bits would be all that is left of it
            raise _DeepPictureError
        picture.load()
        upright = _turn_upright(picture)
        if upright.mode == "P" and "transparency" in upright.info:
            upright = upright.convert("RGBA")  # Pillow warns on the direct way to RGB
        upright = upright.convert("RGB")
    if image_size:
        upright = upright.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(upright)


def _turn_upright(picture: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; damaged EXIF data say nothing, as in viewers."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Pillow's EXIF parser raises many types
        return picture


def _allocate(num: int, shape: tuple[int, ...], request: Request) -> np.ndarray:
    height, width, _ = shape
    check_memory(
        _COPIES * num * float(np.prod(shape)),
        f"{request.path}: reading {num} pictures as {width}x{height} pixels",
        "set a smaller --config.data.image_size or use fewer pictures.",
    )
    return np.empty((num, *shape), np.uint8)


def _report(
    broken: list[str],
    deep: list[str],
    sizes: dict[tuple, list[str]],
    path: str,
    shape: tuple[int, ...] | None,
) -> None:
    """Raises UserError if there is anything wrong, broken pictures first."""
    if broken:
        raise UserError(
            f"{path}: {_count(broken)} cannot be decoded: {list_names(broken)}; replace or remove "
            f"{'it' if len(broken) == 1 else 'them'}."
        )
    if deep:
        raise UserError(
            f"{path}: {_count(deep)} with more than 8 bits per channel, which would be cut off: "
            f"{list_names(deep)}; convert to 8 bits."
        )
    if len(sizes.keys() | ({shape} if shape else set())) > 1:
        usual = shape or max(sizes, key=lambda found: len(sizes[found]))
        others = sorted(
            f"{name} ({found[1]}x{found[0]})"
            for found, names in sizes.items()
            for name in names
            if found != usual
        )
        raise UserError(
            f"{path}: most pictures are {usual[1]}x{usual[0]} pixels, but not "
            f"{list_names(others)}; set --config.data.image_size=SIDE to resize all."
        )


def _count(names: list[str]) -> str:
    return f"{len(names)} picture{'s' if len(names) > 1 else ''}"
