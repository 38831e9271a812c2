"""Data sources: a name and a split -> uint8 images and integer labels, in the original order."""

import dataclasses
import hashlib
import json

import numpy as np

from ltdd_jax.data import digits, folder, tfds_source
from ltdd_jax.types import UserError

SPLITS = ("train", "test")
_TFDS_PREFIX = "tfds:"
_NAMES = ("digits", "cifar10", "cifar100", "folder", f"{_TFDS_PREFIX}NAME")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One split, in host memory.

    Attributes:
      images: uint8 [N, H, W, C], 0..255.
      labels: int32 [N], 0..K-1.
      class_names: K names; the position is the label.
    """

    images: np.ndarray
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
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices])


def load_source(
    name: str, split: str, *, data_dir: str = "", path: str = "", image_size: int = 0
) -> ImageSet:
    """Reads one split of a data set.

    Args:
      name: "digits" (scikit-learn's), "cifar10" or "cifar100" (TensorFlow Datasets), "folder" (the
        user's own pictures) or "tfds:NAME" (any other prepared array_record set with an image and a
        label; in the original order if its examples have an `id`, else in the order on disk).
      split: "train" or "test".
      data_dir: where TFDS keeps its sets; "" is TFDS's default (~/tensorflow_datasets).
      path: directory or tar file of the source "folder"; unused by the others.
      image_size: side in pixels that the source "folder" resizes to; 0 keeps the size. The other
        sources have one size and accept only that or 0.

    Raises:
      UserError: unknown name or split, data that are missing or damaged, pictures of unequal size.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}.")
    if name == "folder":
        if not path:
            raise UserError(
                "data.path is empty, but the source 'folder' needs the directory or .tar file that "
                "holds train/ and test/; set --config.data.path=PATH."
            )
        return ImageSet(*folder.read_folder(path, split, image_size=image_size))
    if name == "digits":
        image_set = ImageSet(*digits.read_digits(split))
    elif name in tfds_source.PREPARED_BY_US or name.removeprefix(_TFDS_PREFIX) not in (name, ""):
        image_set = ImageSet(
            *tfds_source.read_tfds(name.removeprefix(_TFDS_PREFIX), split, data_dir)
        )
    else:
        raise UserError(f"data.source {name!r} is unknown; use one of {', '.join(_NAMES)}.")
    height, width = image_set.images.shape[1:3]
    if image_size and (height, width) != (image_size, image_size):
        raise UserError(
            f"data.image_size={image_size}, but the images of {name!r} are {height}x{width}; only "
            "the source 'folder' resizes, so leave data.image_size at 0."
        )
    return image_set


def fingerprint(*sets: ImageSet) -> str:
    """SHA-256 (hex) over pixels, labels, class names and shapes, in order."""
    digest = hashlib.sha256()
    for image_set in sets:
        for array in (image_set.images, image_set.labels):
            digest.update(json.dumps([array.dtype.str, array.shape]).encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(json.dumps(image_set.class_names).encode())
    return digest.hexdigest()
