"""Data sources: a name and a split -> uint8 images and integer labels, in the original order.

A source is an entry of `SOURCES`; "tfds:NAME" stands for any set that TensorFlow Datasets prepared.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import numpy as np
from etils import epath

from ltdd_jax.data import (
    digits,
    disk_images,
    fashion_mnist,
    folder,
    imagenet,
    long_tail,
    npz_source,
)
from ltdd_jax.data.request import SPLITS, Request, check_channels, describe_error
from ltdd_jax.errors import Interrupted, UserError

_TFDS_PREFIX = "tfds:"
_CIFAR_CONSTANTS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET_CONSTANTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FASHION_CONSTANTS = ((0.286,), (0.353,))

Constants = tuple[tuple[float, ...], tuple[float, ...]]
Arrays = tuple[disk_images.Images, np.ndarray, tuple[str, ...]]  # images, labels, class names


@dataclasses.dataclass(frozen=True)
class Source:
    """How to read a data set, and what is customary for it.

    Attributes:
      read: (request, splits) -> split -> images uint8 [N, H, W, C], labels int32 [N], class names.
      check: (request, splits) finds mistakes of the user that show without reading all of it;
        raises UserError.
      constants: customary channel mean and std of pixels in [0, 1]; None measures them.
      order_test: (labels, num_classes) -> order of the test set in published runs, if not as read.
      takes_path: "no", "may" or "must" be given `path`.
      resizes: whether it can resize pictures to `image_size`.
      streams: whether its pixels may lie on disk; what takes a set of any size should.
      takes_list: whether it follows `train_list`.
    """

    read: Callable[[Request, Sequence[str]], Mapping[str, Arrays]]
    check: Callable[[Request, Sequence[str]], None] = lambda request, splits: None
    constants: Constants | None = None
    order_test: Callable[[np.ndarray, int], np.ndarray] | None = None
    takes_path: str = "no"
    resizes: bool = False
    streams: bool = False
    takes_list: bool = False


def _make_tfds_source(name: str, constants: Constants | None = None, **options) -> Source:
    # TFDS takes a third of a second to import, so only who needs it does so.
    def read(request: Request, splits: Sequence[str]) -> Mapping[str, Arrays]:
        from ltdd_jax.data import tfds_source

        def choose(files: Sequence[str]) -> np.ndarray:
            return imagenet.select_listed(files, request)

        tfds_source.check_prepared(name, request.data_dir, splits)  # before a long reading
        return {
            split: tfds_source.read_tfds(
                name, split, request, choose if request.train_list and split == "train" else None
            )
            for split in splits
        }

    def check(request: Request, splits: Sequence[str]) -> None:
        from ltdd_jax.data import tfds_source

        if request.train_list:
            imagenet.read_list(request.train_list, request)
        tfds_source.check_prepared(name, request.data_dir, splits)

    return Source(
        read=read,
        check=check,
        constants=constants,
        resizes=True,
        streams=True,
        **options,
    )


def _read_digits(request: Request, splits: Sequence[str]) -> Mapping[str, Arrays]:
    del request
    return {split: digits.read_digits(split) for split in splits}


def _read_fashion_mnist(request: Request, splits: Sequence[str]) -> Mapping[str, Arrays]:
    found = fashion_mnist.find_folder(request)
    if found is None:
        return _make_tfds_source("fashion_mnist").read(request, splits)
    return fashion_mnist.read_idx_files(found, splits)


def _check_fashion_mnist(request: Request, splits: Sequence[str]) -> None:
    if fashion_mnist.find_folder(request) is None:
        try:
            _make_tfds_source("fashion_mnist").check(request, splits)
        except UserError as error:
            raise UserError(
                f"{error} (or give the folder with its four IDX files as --config.data.path=FOLDER,"
                " or install Debian's package dataset-fashion-mnist)"
            ) from error


def _read_tiny_imagenet(request: Request, splits: Sequence[str]) -> Mapping[str, Arrays]:
    found = _find_tiny_imagenet(request)
    if found is None:
        return _make_tfds_source("tiny_imagenet").read(request, splits)
    return imagenet.read_imagenet(found, splits)


def _check_tiny_imagenet(request: Request, splits: Sequence[str]) -> None:
    found = _find_tiny_imagenet(request)
    if found is not None:
        imagenet.check_imagenet(found)
        return
    try:
        _make_tfds_source("tiny_imagenet").check(request, splits)
    except UserError as error:  # TFDS has no builder of this name, so its advice does not help
        raise UserError(
            "data.path is empty and neither tiny-imagenet-200.zip, its folder nor a prepared set "
            "tiny_imagenet is in the data_dir; give the archive from "
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip as --config.data.path=FILE."
        ) from error


def _find_tiny_imagenet(request: Request) -> Request | None:
    """The request with the path of the original files: that given, or one in `data_dir`."""
    if request.path:
        return request
    top = epath.Path(request.data_dir).expanduser() if request.data_dir else None
    names = ("tiny-imagenet-200", "tiny-imagenet-200.zip", "tiny-imagenet-200.tar")
    found = next((top / name for name in names if top and (top / name).exists()), None)
    return None if found is None else dataclasses.replace(request, path=os.fspath(found))


def _read_imagenet(request: Request, splits: Sequence[str]) -> Mapping[str, Arrays]:
    reader = imagenet.read_imagenet if request.path else _make_tfds_source("imagenet2012").read
    return reader(request, splits)


def _check_imagenet(request: Request, splits: Sequence[str]) -> None:
    if request.path:
        imagenet.check_imagenet(request)
    else:
        _make_tfds_source("imagenet2012").check(request, splits)


def _refuse_arrays(request: Request, splits: Sequence[str]) -> NoReturn:
    raise UserError(
        "data.source=arrays stands for arrays given in Python to ltdd_jax.distill_dataset; here "
        "use another source, such as npz for a file of arrays"
    )


SOURCES: dict[str, Source] = {
    "digits": Source(read=_read_digits),
    "cifar10": _make_tfds_source(
        "cifar10",
        _CIFAR_CONSTANTS,
        order_test=long_tail.permute_test,  # as the published program does
    ),
    # The published runs used CIFAR-10's constants for both.
    "cifar100": _make_tfds_source("cifar100", _CIFAR_CONSTANTS),
    "fashion_mnist": Source(
        read=_read_fashion_mnist,
        check=_check_fashion_mnist,
        constants=_FASHION_CONSTANTS,
        takes_path="may",
    ),
    "tiny_imagenet": Source(
        read=_read_tiny_imagenet,
        check=_check_tiny_imagenet,
        constants=_IMAGENET_CONSTANTS,
        takes_path="may",
        resizes=True,
        streams=True,
    ),
    "imagenet": Source(
        read=_read_imagenet,
        check=_check_imagenet,
        constants=_IMAGENET_CONSTANTS,
        takes_path="may",
        resizes=True,
        streams=True,
        takes_list=True,
    ),
    "folder": Source(
        read=folder.read_folder,
        check=lambda request, splits: folder.check_folder(request),
        takes_path="must",
        resizes=True,
        streams=True,
    ),
    "npz": Source(
        read=npz_source.read_npz,
        check=lambda request, splits: npz_source.check_npz(request),
        takes_path="must",
    ),
    "arrays": Source(read=_refuse_arrays, check=_refuse_arrays),
}
_TFDS_CONSTANTS = {  # by the start of the name in TFDS, for sets that have no entry above
    "cifar": _CIFAR_CONSTANTS,
    "imagenet": _IMAGENET_CONSTANTS,
    "tiny_imagenet": _IMAGENET_CONSTANTS,
}


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One split.

    Attributes:
      images: uint8 [N, H, W, C], 0..255, in memory or on disk.
      labels: int32 [N], 0..K-1.
      class_names: K names; the position is the label.
    """

    images: disk_images.Images
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def class_counts(self) -> np.ndarray:
        """Number of images of every class, int64 [K]."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    def take(self, indices: np.ndarray) -> "ImageSet":
        """The images at `indices`, in that order."""
        images = disk_images.take(self.images, indices)
        return dataclasses.replace(self, images=images, labels=self.labels[indices])


def find_source(name: str) -> Source:
    """The source called `name`.

    "tfds:NAME" reads the prepared set in the original order if its examples have an `id`, else in
    the order on disk; where NAME has an entry of its own, it has the same constants and order.

    Raises:
      UserError: there is no such source.
    """
    if name in SOURCES:
        return SOURCES[name]
    prefix, _, inner = name.partition(_TFDS_PREFIX)
    if prefix or not inner:
        known = ", ".join((*SOURCES, f"{_TFDS_PREFIX}NAME"))
        raise UserError(f"data.source {name!r} is unknown; use one of {known}.")
    known_set = inner.partition(":")[0].partition("/")[0]
    if known_set in SOURCES:
        same = SOURCES[known_set]
        return _make_tfds_source(inner, same.constants, order_test=same.order_test)
    starts = (start for start in _TFDS_CONSTANTS if known_set.startswith(start))
    return _make_tfds_source(inner, _TFDS_CONSTANTS.get(next(starts, "")))


def load_splits(name: str, splits: Sequence[str] = SPLITS, **options) -> dict[str, ImageSet]:
    """Reads splits of a data set, all of them in one pass.

    Args:
      name: a key of `SOURCES`, or "tfds:NAME" for any prepared array_record set with an image and
        a label.
      splits: "train", "test" or both.
      **options: fields of `request.Request`: where the data lie, limits, callbacks.

    Raises:
      UserError: unknown name or split, data that are missing or damaged, fewer than two classes,
        images of a wrong size; one sentence that names the setting or file and the remedy.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}.")
    request = Request(**options)
    source = _check_place(name, request)
    try:
        arrays = source.read(request, splits)
    except (UserError, Interrupted, MemoryError):
        raise
    except Exception as error:  # whatever a library makes of damaged or hostile files
        raise UserError(
            f"the source {name!r} cannot be read ({type(error).__name__}: "
            f"{describe_error(error)}); check or replace its files."
        ) from error
    sets = {split: ImageSet(*of_split) for split, of_split in arrays.items()}
    for image_set in sets.values():
        _check_set(name, source, image_set, request.image_size)
    return sets


def load_source(name: str, split: str, **options) -> ImageSet:
    """Reads one split; see `load_splits`."""
    return load_splits(name, (split,), **options)[split]


def check_source(name: str, splits: Sequence[str] = SPLITS, **options) -> None:
    """Finds in a moment what is wrong with where and how the data lie; imports no JAX.

    Args and errors are those of `load_splits`; damage inside pictures or records is found only
    when they are read.
    """
    request = Request(**options)
    _check_place(name, request).check(request, splits)


def channel_constants(name: str, train_images: disk_images.Images) -> Constants:
    """Channel mean and std of a source: the customary constants, else those of `train_images`.

    Args:
      name: as in `load_splits`.
      train_images: uint8 [N, H, W, C]; looked at only for sources without customary constants.

    Returns:
      mean and std, C numbers each, of pixels in [0, 1].
    """
    constants = find_source(name).constants
    return constants if constants is not None else measure_constants(train_images)


def measure_constants(images: disk_images.Images) -> Constants:
    """Mean and std of every channel of uint8 [N, H, W, C]; std 1 where a channel is constant."""
    histograms = np.zeros((images.shape[-1], 256), np.int64)
    for block in disk_images.iterate_blocks(images):
        for channel, histogram in enumerate(histograms):
            histogram += np.bincount(block[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255.0
    means = [float(np.average(levels, weights=h)) for h in histograms]
    stds = [
        float(np.sqrt(np.average((levels - mean) ** 2, weights=h)))
        for mean, h in zip(means, histograms, strict=True)
    ]
    return tuple(means), tuple(std or 1.0 for std in stds)  # a constant channel only shifts


def fingerprint(*sets: ImageSet) -> str:
    """SHA-256 (hex) over pixels, labels, class names and shapes, in order."""
    digest = hashlib.sha256()
    for image_set in sets:
        for array in (image_set.images, image_set.labels):
            digest.update(json.dumps([array.dtype.str, array.shape]).encode())
            for block in disk_images.iterate_blocks(array):
                digest.update(np.ascontiguousarray(block).data)
        digest.update(json.dumps(image_set.class_names).encode())
    return digest.hexdigest()


def _check_place(name: str, request: Request) -> Source:
    """The source, if `path` and `image_size` are of use to it."""
    source = find_source(name)
    if source.takes_path == "must" and not request.path:
        raise UserError(
            f"data.path is empty, but the source {name!r} needs it; set --config.data.path=PATH."
        )
    if source.takes_path == "no" and request.path:
        raise UserError(
            f"data.path={request.path} is not read by the source {name!r}; leave it out or set "
            "--config.data.source=folder."
        )
    if request.train_list and not source.takes_list:
        raise UserError(
            f"data.train_list={request.train_list} is not read by the source {name!r}; leave it "
            "out or set --config.data.source=imagenet."
        )
    if request.memory == "stream" and not source.streams:
        raise UserError(
            f"data.memory=stream is not possible for the source {name!r}, which is read into "
            "memory; set --config.data.memory=auto, or give a folder of pictures."
        )
    return source


def _check_set(name: str, source: Source, image_set: ImageSet, image_size: int) -> None:
    if image_set.num_classes < 2:
        raise UserError(
            f"the source {name!r} has one class only; a classifier needs at least two classes."
        )
    check_channels(name, image_set.images.shape[3])
    height, width = image_set.images.shape[1:3]
    if image_size and not source.resizes and (height, width) != (image_size, image_size):
        raise UserError(
            f"data.image_size={image_size}, but the images of {name!r} are {height}x{width}; this "
            "source does not resize, so leave data.image_size at 0."
        )
