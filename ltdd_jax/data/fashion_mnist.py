"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its four IDX files."""

import contextlib
import gzip
import math
import struct
from collections.abc import Sequence

import numpy as np
from etils import epath

from ltdd_jax.data.request import Request, describe_error, is_regular_file
from ltdd_jax.errors import UserError

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SYSTEM_FOLDER = "/usr/share/datasets/fashion-mnist"  # of Debian's dataset-fashion-mnist
_STEMS = {"train": "train", "test": "t10k"}
_PARTS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_MAX_BYTES = 2**26  # of one unpacked file; the largest of the originals has 47 MB


def find_folder(request: Request) -> epath.Path | None:
    """The folder with all four files: `path`, `data_dir`/fashion_mnist or Debian's; else None.

    Raises:
      UserError: `path` is given and has not all of them.
    """
    if request.path:
        folder = epath.Path(request.path).expanduser()
        missing = _list_missing(folder)
        if missing:
            raise UserError(
                f"data.path={request.path} has no file {missing[0]} or {missing[0]}.gz; give the "
                "folder with the four files of Fashion-MNIST."
            )
        return folder
    places = [epath.Path(SYSTEM_FOLDER)]
    if request.data_dir:
        places.insert(0, epath.Path(request.data_dir).expanduser() / "fashion_mnist")
    return next((folder for folder in places if not _list_missing(folder)), None)


def read_idx_files(
    folder: epath.Path, splits: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Reads splits from a folder that has the files, packed with gzip or not.

    Returns:
      For every split: images uint8 [N, 28, 28, 1], labels int32 [N] in file order, class names.

    Raises:
      UserError: a file is damaged or of another kind.
    """
    result: dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]] = {}
    for split in splits:
        images_file, labels_file = (_find(folder, f"{_STEMS[split]}-{part}") for part in _PARTS)
        assert images_file and labels_file  # `find_folder` has seen them
        images, labels = _read_idx(images_file, 3), _read_idx(labels_file, 1)
        if len(images) != len(labels) or labels.max(initial=0) >= len(CLASS_NAMES):
            raise UserError(
                f"{labels_file} does not belong to {images_file.name}; get both files again."
            )
        result[split] = (images[..., None], labels.astype(np.int32), CLASS_NAMES)
    return result


def _list_missing(folder: epath.Path) -> list[str]:
    names = [f"{stem}-{part}" for stem in _STEMS.values() for part in _PARTS]
    return [name for name in names if _find(folder, name) is None]


def _find(folder: epath.Path, name: str) -> epath.Path | None:
    return next((f for f in (folder / name, folder / f"{name}.gz") if is_regular_file(f)), None)


def _read_idx(path: epath.Path, num_axes: int) -> np.ndarray:
    """An IDX file of bytes: magic number, length of every axis (big-endian), values."""
    try:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(path.open("rb"))
            if path.suffix == ".gz":
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
            content = stream.read(_MAX_BYTES + 1)
        magic, *shape = struct.unpack(f">{num_axes + 1}I", content[: 4 * (num_axes + 1)])
        values = content[4 * (num_axes + 1) :]
        if magic != 0x0800 + num_axes or len(values) != math.prod(shape) or not values:
            raise ValueError("its header does not fit its length")
    except Exception as error:  # gzip, zlib, struct and file systems raise many types
        raise UserError(
            f"{path} is damaged ({describe_error(error)}); get the file again."
        ) from error
    return np.frombuffer(values, np.uint8).reshape(shape).copy()
