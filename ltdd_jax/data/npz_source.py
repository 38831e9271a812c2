"""The user's own arrays in an .npz file."""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from ltdd_jax.data.request import Request, check_memory, describe_error, is_regular_file
from ltdd_jax.errors import UserError

_HELD_OUT = 5  # every fifth part of a class is the test set where the file has none
_COPIES = 5  # bytes per value: the pixel and the float32 that the network will be given

_Header = tuple[tuple[int, ...], np.dtype]


def _is_images(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype == np.uint8 and len(shape) in (3, 4) and all(shape)


def _is_labels(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype.kind in "iu" and len(shape) == 1 and all(shape)


def _is_names(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype.kind in "US" and len(shape) == 1 and all(shape)


_PIXELS_WANTED = "uint8[N, height, width, channels] with values 0 to 255"
_LABELS_WANTED = "a one-dimensional array of whole numbers from 0"
_KINDS = {
    "images": (_is_images, _PIXELS_WANTED),
    "labels": (_is_labels, _LABELS_WANTED),
    "test_images": (_is_images, _PIXELS_WANTED),
    "test_labels": (_is_labels, _LABELS_WANTED),
    "class_names": (_is_names, "a one-dimensional array of texts, not of objects,"),
}


def read_npz(
    request: Request, splits: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Reads `images`, `labels` and, where they are, `test_images`, `test_labels`, `class_names`.

    Without test arrays the last fifth of every class, in file order and at least one image, is
    the test set. Test arrays are read only if they are asked for.

    Args:
      request: `path` is the file: images uint8 [N, H, W, C] (or [N, H, W]), C = 1 or 3, labels
        integers [N] in 0..K-1, class_names K texts.
      splits: "train", "test" or both.

    Returns:
      For every split: images uint8 [N, H, W, C], labels int32 [N] and the class names.

    Raises:
      UserError: no readable file, or arrays that are missing or of another kind.
    """
    path = request.path
    arrays, has_test = _read_arrays(path, splits)
    images, labels = {}, {}
    for split, prefix in (("train", ""), ("test", "test_")):
        if f"{prefix}images" in arrays:
            pixels, name = arrays[f"{prefix}images"], f"{prefix}labels"
            images[split] = pixels.reshape(_with_channel(pixels.shape))
            labels[split] = _check_labels(path, name, pixels, arrays[name])
    names = _make_names(path, arrays.get("class_names"), labels["train"])
    for values in labels.values():
        if values.max() >= len(names):
            raise UserError(
                f"data.path={path}: labels go up to {values.max()}, but there are {len(names)} "
                "classes, numbered from 0; renumber the labels or mend class_names."
            )
    if not has_test:
        request.warn(
            f"data.path={path} has no test_images; the last fifth of every class is the test set."
        )
        held_out = _hold_out(path, labels["train"], names)
        images = {"train": images["train"][~held_out], "test": images["train"][held_out]}
        labels = {"train": labels["train"][~held_out], "test": labels["train"][held_out]}
    return {split: (images[split], labels[split].astype(np.int32), names) for split in splits}


def check_npz(request: Request) -> None:
    """Finds a missing file and arrays of a wrong kind, without reading them."""
    with _open_archive(request.path) as archive:
        _check_headers(request.path, _read_headers(archive))


def _read_arrays(path: str, splits: Sequence[str]) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays that the splits need, and whether the file has test arrays."""
    with _open_archive(path) as archive:
        headers = _read_headers(archive)
        _check_headers(path, headers)
        arrays = {}
        for name in headers:
            if name.startswith("test_") and "test" not in splits:
                continue
            with archive.open(f"{name}.npy") as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays, "test_images" in headers


@contextlib.contextmanager
def _open_archive(path: str) -> Iterator[zipfile.ZipFile]:
    """The file as a zip archive; whatever goes wrong inside the context is one sentence."""
    location = epath.Path(path).expanduser()
    try:
        if not is_regular_file(location):  # opening a pipe would wait for somebody to write
            raise UserError(f"data.path={path} is no file; give an .npz file.")
        with location.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except (UserError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many types
        raise UserError(
            f"data.path={path} is no intact .npz file ({describe_error(error)}); write it with "
            "numpy.savez."
        ) from error


def _read_headers(archive: zipfile.ZipFile) -> dict[str, _Header]:
    """Shape and type of the arrays that are asked for, without their content."""
    headers = {}
    for name in _KINDS:
        if f"{name}.npy" not in archive.namelist():
            continue
        with archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read is None:  # only structured arrays are written like this
                raise ValueError(f"{name} has format {version}")
            shape, _, dtype = read(stream)
        headers[name] = (shape, dtype)
    return headers


def _check_headers(path: str, headers: dict[str, _Header]) -> None:
    """Raises UserError for what is missing, of a wrong type or shape, or too large."""
    for name, partner in (("images", "labels"), ("test_images", "test_labels")):
        missing = {name, partner} - set(headers)
        if missing and (name == "images" or len(missing) == 1):
            raise UserError(
                f"data.path={path} has no array {min(missing)!r}; write it with "
                f"numpy.savez(FILE, images=..., labels=...), and test_images with test_labels."
            )
    for name, (shape, dtype) in headers.items():
        is_right, wanted = _KINDS[name]
        if not is_right(shape, dtype):
            raise UserError(
                f"data.path={path}: {name} is {dtype}{list(shape)}, but {wanted} is needed."
            )
    if "test_images" in headers:
        train, test = (_with_channel(headers[name][0])[1:] for name in ("images", "test_images"))
        if train != test:
            raise UserError(
                f"data.path={path}: images have the size {list(train)} and test_images "
                f"{list(test)}; both must have the same."
            )
    pixels = sum(math.prod(headers[n][0]) for n in ("images", "test_images") if n in headers)
    check_memory(_COPIES * pixels, f"data.path={path}", "use fewer or smaller images.")


def _with_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (*shape, 1)


def _check_labels(path: str, name: str, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if len(images) != len(labels):
        raise UserError(
            f"data.path={path}: there are {len(images)} images and {len(labels)} labels in "
            f"{name}; every image needs one."
        )
    if labels.min() < 0:
        raise UserError(
            f"data.path={path}: {name} go down to {labels.min()}, but classes are numbered from 0."
        )
    return labels


def _make_names(path: str, names: np.ndarray | None, labels: np.ndarray) -> tuple[str, ...]:
    """K class names: those of the file, else the numbers up to the largest training label."""
    if names is None:
        num_classes = int(labels.max()) + 1
        if num_classes > len(labels):
            raise UserError(
                f"data.path={path}: labels go up to {num_classes - 1} for {len(labels)} images; "
                "number the classes from 0 without gaps."
            )
        return tuple(str(label) for label in range(num_classes))
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    texts = [str(name) for name in names]
    for text in texts:
        if not text.isprintable() or not text:
            raise UserError(
                f"data.path={path}: class name {text!r} is empty or has signs that cannot be "
                "printed."
            )
    if len(set(texts)) < len(texts):
        raise UserError(f"data.path={path}: class_names has a name twice; names must differ.")
    return tuple(texts)


def _hold_out(path: str, labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Whether an image belongs to the test set: bool [N], the last fifth of every class."""
    held_out = np.zeros(len(labels), bool)
    for label, name in enumerate(names):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise UserError(
                f"data.path={path}: class {name!r} has {len(rows)} images, but two are needed to "
                "hold one out for the test; add images, or test_images and test_labels."
            )
        held_out[rows[-max(1, len(rows) // _HELD_OUT) :]] = True
    return held_out
