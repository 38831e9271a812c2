"""Reading sets that TensorFlow Datasets prepared as array_record, without TensorFlow."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
import tqdm
from etils import epath
from PIL import Image
from tensorflow_datasets.core import constants

from ltdd_jax.data import disk_images
from ltdd_jax.data.request import SPLITS, Request
from ltdd_jax.errors import UserError

PREPARED_BY_US = ("cifar10", "cifar100")
_BLOCK = 1000  # examples per read; blocks are two to three times as fast as single examples
_RESIZED_BLOCK = 64  # of pictures of any size: 64 of 12 megapixels have 2.3 GB
_TEST_SPLITS = {"imagenet2012": "validation"}  # whose own test has no labels


def default_data_dir(data_dir: str) -> epath.Path:
    """`data_dir`, or TFDS's default folder where it is empty."""
    return epath.Path(data_dir or constants.get_default_data_dir()).expanduser()


def preparation_command(name: str, data_dir: str) -> str:
    """The command that prepares a set where `read_tfds` looks for it."""
    if name in PREPARED_BY_US:
        argument = f" --data_dir={data_dir}" if data_dir else ""
        return f"python -m ltdd_jax.data.prepare {name}{argument}"
    return (
        f"tfds.builder({name!r}, data_dir={str(default_data_dir(data_dir))!r}, "
        "file_format='array_record').download_and_prepare() in Python"
    )


def find_prepared(name: str, data_dir: str) -> epath.Path | None:
    """Folder of the newest completely prepared version, or None.

    TFDS writes dataset_info.json last and then renames the folder, so a folder that has the file
    and a version as its name is complete.
    """
    folders = [
        file.parent for file in (default_data_dir(data_dir) / name).glob("*/dataset_info.json")
    ]
    versions = [folder for folder in folders if folder.name.replace(".", "").isdecimal()]
    return max(versions, key=lambda f: [int(n) for n in f.name.split(".")], default=None)


def check_prepared(name: str, data_dir: str, splits: Sequence[str] = SPLITS) -> epath.Path:
    """Folder of the prepared set, after a look at its metadata and at the presence of its files.

    Args:
      name: name of the TFDS set.
      data_dir: TFDS's data folder, "" is its default.
      splits: those that will be read; the others need not be there.

    Raises:
      UserError: the set is missing, is not array_record, or lacks a split or a file.
    """
    folder = find_prepared(name, data_dir)
    command = preparation_command(name, data_dir)
    if folder is None:
        raise UserError(
            f"data set {name!r} is not prepared in {default_data_dir(data_dir)}; run: {command}"
        )
    for split in splits:
        source, found = _open_source(name, split, folder, command)
        for file in source.dataset_info.splits[found].filepaths:
            if not file.exists():
                raise UserError(f"{file} is missing; delete {folder} and run: {command}")
    return folder


def read_tfds(
    name: str,
    split: str,
    request: Request,
    choose: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> tuple[disk_images.Images, np.ndarray, tuple[str, ...]]:
    """Reads one split of a prepared set.

    Examples lie on disk in TFDS's shuffled order; they come back sorted by `id`, which for CIFAR
    is the order of the original batches, or else by `file_name`, where the set has one.

    Args:
      name: name of the TFDS set, e.g. "cifar10".
      split: "train" or "test"; where the set has no labelled test, "validation" is read for it.
      request: `data_dir` is TFDS's data folder, "" is its default; `image_size` resizes as
        `pictures.decode_all` does; `check` and the stream settings apply.
      choose: called with the file names of all examples; returns the positions that are read.

    Returns:
      images uint8 [N, H, W, C], labels int32 [N] and the class names.

    Raises:
      UserError: the set is missing, is not array_record, is damaged, or is no classification set
        of images of one size.
    """
    prepared = _open(name, split, request.data_dir)
    features = prepared.source.dataset_info.features
    if not {"image", "label"} <= set(features):
        raise UserError(
            f"{prepared.folder}: examples have {sorted(features)}, but image and label are needed."
        )
    names = tuple(features["label"].names)
    rows = np.arange(len(prepared.source))
    shape = _find_shape(prepared, request.image_size)
    images: disk_images.Images
    if choose is None and not disk_images.is_streamed(request, len(rows) * math.prod(shape)):
        images, labels, keys = _read_examples(prepared, rows, request)
    else:
        labels, keys = _read_annotations(prepared, rows, request)
        if choose is not None:
            rows = choose(_name_files(prepared, labels, keys, names))
        labels, keys = labels[rows], [keys[row] for row in rows]
        images = _read_chosen(prepared, rows, shape, request)
    if _find_key(features):
        order = np.argsort(np.array(keys), kind="stable")
        images, labels = disk_images.take(images, order), labels[order]
    return images, labels, names


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A split of a prepared set: the random-access source, its folder, what prepares it again."""

    source: Any
    name: str
    split: str
    folder: epath.Path
    command: str


def _open(name: str, split: str, data_dir: str) -> _Prepared:
    folder = check_prepared(name, data_dir, (split,))
    command = preparation_command(name, data_dir)
    source, found = _open_source(name, split, folder, command)
    return _Prepared(source, name, found, folder, command)


def _open_source(
    name: str, split: str, folder: epath.Path, command: str, **options: Any
) -> tuple[Any, str]:
    """The random-access source of one split, and the name that the set has for the split."""
    remedy = f"delete {folder} and run: {command}"
    try:
        found = _find_split(name, split, folder)
        source = tfds.data_source(
            f"{name}:{folder.name}",
            split=found,
            data_dir=_find_data_dir(name, folder),
            download=False,
            **options,
        )
        return source, found
    except UserError:
        raise
    except NotImplementedError as error:  # what TFDS raises for files it cannot index
        raise UserError(
            f"{folder} was prepared in a file format without random access (tfrecord, the default "
            f"of tfds.load), but array_record is needed; {remedy} (or use another data_dir)"
        ) from error
    except Exception as error:  # damaged metadata raise errors of many libraries
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise UserError(
            f"{folder}: split {split!r} cannot be opened ({reason}); {remedy}"
        ) from error


def _find_split(name: str, split: str, folder: epath.Path) -> str:
    """The name that the set has for the split; UserError if it has none."""
    info = json.loads((folder / "dataset_info.json").read_text())
    there = [each["name"] for each in info["splits"]]
    found = _TEST_SPLITS.get(name, split) if split == "test" else split
    if found == "test" and "test" not in there and "validation" in there:
        return "validation"
    if found not in there:
        judge = "set --config.data.judge=held_out, which judges with training images, or "
        raise UserError(
            f"{folder} has no split {found!r}, only {', '.join(there)}; "
            f"{judge if split == 'test' else ''}give another data set"
        )
    return found


def _find_data_dir(name: str, folder: epath.Path) -> epath.Path:
    """A name may have a part for the variant, such as imagenet_resized/64x64."""
    return folder.parents[len(name.split("/"))]


def _find_key(features: Any) -> str:
    """The feature by which examples are sorted; "" if there is none."""
    return next((key for key in ("id", "file_name") if key in features), "")


def _find_shape(prepared: _Prepared, image_size: int) -> tuple[int, ...]:
    """Of the images as they are read; one is looked at where the set does not say it."""
    shape = prepared.source.dataset_info.features["image"].shape
    if not len(prepared.source):
        raise UserError(
            f"{prepared.folder}: split {prepared.split!r} has no examples; prepare it again: "
            f"{prepared.command}"
        )
    if image_size and shape[-1]:
        return (image_size, image_size, shape[-1])
    if None in shape:
        shape = _read_block(prepared, prepared.source, [0])[0]["image"].shape
    return tuple(shape)


def _read_chosen(prepared, rows, shape, request) -> disk_images.Images:
    """The images at `rows`, in memory or on disk."""
    if not disk_images.is_streamed(request, len(rows) * math.prod(shape)):
        return _read_examples(prepared, rows, request)[0]
    identity = {
        "tfds": os.fspath(prepared.folder),
        "files": [f"{f} {f.stat().length} {f.stat().mtime}" for f in _list_files(prepared)],
        "rows": hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest(),
        "image_size": request.image_size,
    }

    def read_piece(start: int, end: int) -> np.ndarray:
        return _read_examples(prepared, rows[start:end], request, shape)[0]

    return disk_images.write(request, identity, len(rows), shape, read_piece)


def _list_files(prepared: _Prepared) -> list[epath.Path]:
    files = prepared.source.dataset_info.splits[prepared.split].filepaths
    return [epath.Path(file) for file in files]


def _name_files(prepared, labels, keys, names) -> list[str]:
    """ "CLASS/FILE" of every example."""
    if _find_key(prepared.source.dataset_info.features) != "file_name":
        raise UserError(
            f"{prepared.folder}: its examples have no file_name, so data.train_list cannot be "
            "followed; give the pictures as --config.data.path=FOLDER."
        )
    files = (key.decode(errors="replace").rpartition("/")[2] for key in keys)
    return [f"{names[label]}/{file}" for label, file in zip(labels, files, strict=True)]


def _read_annotations(
    prepared: _Prepared, rows: np.ndarray, request: Request
) -> tuple[np.ndarray, list[bytes]]:
    """Labels and sorting keys of examples, whose images are not decoded."""
    source, _ = _open_source(
        prepared.name,
        "train" if prepared.split == "train" else "test",
        prepared.folder,
        prepared.command,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    labels = np.empty(len(rows), np.int32)
    keys: list[bytes] = []
    key = _find_key(source.dataset_info.features)
    for start in range(0, len(rows), _BLOCK):
        request.check()
        block = rows[start : start + _BLOCK].tolist()
        for example in _read_block(prepared, source, block):
            labels[len(keys)] = example["label"]
            keys.append(example.get(key, b""))
    return labels, keys


def _read_examples(
    prepared: _Prepared,
    rows: np.ndarray,
    request: Request,
    shape: tuple[int, ...] | None = None,
) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """Examples in that order: images, labels and sorting keys (empty where there are none).

    The images have `shape`, that of the first if None.
    """
    source, side = prepared.source, request.image_size
    images = None if shape is None else np.empty((len(rows), *shape), np.uint8)
    labels = np.empty(len(rows), np.int32)
    keys: list[bytes] = []
    key = _find_key(source.dataset_info.features)
    step = _RESIZED_BLOCK if side else _BLOCK
    with (
        _without_decoder_advice(),
        tqdm.tqdm(
            total=len(rows),
            desc=f"Reading {prepared.name} {prepared.split}",
            unit="img",
            disable=None,
            delay=1.0,
        ) as bar,
    ):
        for start in range(0, len(rows), step):
            request.check()
            indices = rows[start : start + step].tolist()
            for index, example in zip(indices, _read_block(prepared, source, indices), strict=True):
                image = _resize(example["image"], side)
                if images is None:
                    images = np.empty((len(rows), *image.shape), np.uint8)
                if image.shape != images.shape[1:] or image.dtype != np.uint8:
                    raise UserError(
                        f"{prepared.folder}: image {index} of {prepared.split!r} is {image.dtype} "
                        f"{image.shape}, but uint8 {images.shape[1:]} is needed: all images must "
                        "have one size; set --config.data.image_size=SIDE to resize all."
                    )
                images[len(keys)] = image
                labels[len(keys)] = example["label"]
                keys.append(example.get(key, b""))
            bar.update(len(indices))
    assert images is not None  # nobody asks for no rows
    return images, labels, keys


def _read_block(prepared: _Prepared, source: Any, indices: list[int]) -> list[dict[str, Any]]:
    try:
        return source.__getitems__(indices)
    except Exception as error:  # array_record and the decoders raise many types
        file = _damaged_file(source, prepared.split, indices)
        raise UserError(
            f"{file} is damaged or missing ({error}); delete {prepared.folder} and run: "
            f"{prepared.command}"
        ) from error


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    """The image as uint8 [side, side, C], like `pictures.decode_all`; unchanged with side 0."""
    if not side or image.shape[:2] == (side, side) or image.dtype != np.uint8:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    return resized.reshape(side, side, image.shape[2])


def _damaged_file(source: Any, split: str, indices: list[int]) -> str:
    """Name of the record file that holds the first of `indices` that cannot be read."""
    info = source.dataset_info.splits[split]
    ends = list(itertools.accumulate(info.shard_lengths))
    for index in indices:
        try:
            source[index]
        except Exception:  # as in `_read_examples`
            return next(str(f) for f, end in zip(info.filepaths, ends, strict=True) if index < end)
    return ", ".join(map(str, info.filepaths))


@contextlib.contextmanager
def _without_decoder_advice() -> Iterator[None]:
    """Drops TFDS's log line that recommends OpenCV: Pillow gives the same pixels."""

    def keep(record) -> bool:
        return "OpenCV is not installed" not in str(record.msg)

    logger = absl.logging.get_absl_logger()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
