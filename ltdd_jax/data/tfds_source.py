"""Reading sets that TensorFlow Datasets prepared as array_record, without TensorFlow."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
import tqdm
from etils import epath
from tensorflow_datasets.core import constants

from ltdd_jax.errors import UserError

PREPARED_BY_US = ("cifar10", "cifar100")
_BLOCK = 1000  # examples per read; blocks are two to three times as fast as single examples


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


def check_prepared(name: str, data_dir: str) -> epath.Path:
    """Folder of the prepared set, after a look at its metadata and at the presence of its files.

    Raises:
      UserError: the set is missing, is not array_record, or lacks a file.
    """
    folder = find_prepared(name, data_dir)
    command = preparation_command(name, data_dir)
    if folder is None:
        raise UserError(
            f"data set {name!r} is not prepared in {default_data_dir(data_dir)}; run: {command}"
        )
    for split in ("train", "test"):
        for file in _open_source(name, split, folder, command).dataset_info.splits[split].filepaths:
            if not file.exists():
                raise UserError(f"{file} is missing; delete {folder} and run: {command}")
    return folder


def read_tfds(
    name: str, split: str, data_dir: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Reads one split of a prepared set into memory.

    Examples lie on disk in TFDS's shuffled order; they come back sorted by `id` where the set has
    one, which for CIFAR is the order of the original batches.

    Args:
      name: name of the TFDS set, e.g. "cifar10".
      split: "train" or "test".
      data_dir: TFDS's data folder; "" is its default.

    Returns:
      images uint8 [N, H, W, C], labels int32 [N] and the class names.

    Raises:
      UserError: the set is missing, is not array_record, is damaged, or is no classification set
        of images of one size.
    """
    folder = check_prepared(name, data_dir)
    command = preparation_command(name, data_dir)
    source = _open_source(name, split, folder, command)
    features = source.dataset_info.features
    if not {"image", "label"} <= set(features):
        raise UserError(
            f"{folder}: examples have {sorted(features)}, but image and label are needed."
        )
    images, labels, ids = _read_examples(source, name, split, folder, command)
    if "id" in features:
        order = np.argsort(np.array(ids), kind="stable")
        images, labels = images[order], labels[order]
    return images, labels, tuple(features["label"].names)


def _open_source(name: str, split: str, folder: epath.Path, command: str) -> Any:
    """The random-access source of one split."""
    remedy = f"delete {folder} and run: {command}"
    try:
        return tfds.data_source(
            f"{name}:{folder.name}", split=split, data_dir=folder.parent.parent, download=False
        )
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


def _read_examples(
    source: Any, name: str, split: str, folder: epath.Path, command: str
) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """All examples in the order on disk: images, labels and ids (empty where there are none)."""
    images, ids = None, []
    labels = np.empty(len(source), np.int32)
    with (
        _without_decoder_advice(),
        tqdm.tqdm(
            total=len(source), desc=f"Reading {name} {split}", unit="img", disable=None, delay=1.0
        ) as bar,
    ):
        for start in range(0, len(source), _BLOCK):
            indices = list(range(start, min(start + _BLOCK, len(source))))
            try:
                examples = source.__getitems__(indices)
            except Exception as error:  # array_record and the decoders raise many types
                file = _damaged_file(source, split, indices)
                raise UserError(
                    f"{file} is damaged or missing ({error}); delete {folder} and run: {command}"
                ) from error
            for index, example in zip(indices, examples, strict=True):
                image = example["image"]
                if images is None:
                    images = np.empty((len(source), *image.shape), np.uint8)
                if image.shape != images.shape[1:] or image.dtype != np.uint8:
                    raise UserError(
                        f"{folder}: image {index} of {split!r} is {image.dtype} {image.shape}, but "
                        f"uint8 {images.shape[1:]} is needed: all images must have one size."
                    )
                images[index] = image
                labels[index] = example["label"]
                ids.append(example.get("id", b""))
            bar.update(len(indices))
    if images is None:
        raise UserError(f"{folder}: split {split!r} has no examples; prepare it again: {command}")
    return images, labels, ids


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
