"""Network input of images that stay on disk: on the host and inside compiled programs."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.data import normalize
from ltdd_jax.data.disk_images import DiskImages, Images
from ltdd_jax.types import Array


@dataclasses.dataclass(frozen=True)
class PreprocessedImages:
    """Indexed like network input float32 [N, H, W, C]; a row is read and preprocessed when asked.

    Attributes:
      images: on disk.
      preprocessing: fitted.
    """

    images: DiskImages
    preprocessing: normalize.Preprocessing

    dtype = np.dtype(np.float32)
    nbytes = 0  # of memory

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return self.images.shape

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray | slice) -> "PreprocessedImages":
        """The images at `rows`, in that order, without reading them."""
        return dataclasses.replace(self, images=self.images.take(rows))

    def __getitem__(self, index: np.ndarray | slice | int) -> np.ndarray:
        """Rows as `normalize.apply` makes them; an int, a slice, or an array of any shape."""
        pixels = self.images[index]
        flat = pixels.reshape(-1, *self.shape[1:])
        return normalize.apply(self.preprocessing, flat).reshape(pixels.shape)

    def __array__(self, *args, **options) -> np.ndarray:
        return self.images.__array__()  # says that this is not possible


@flax.struct.dataclass
class StreamedImages:
    """Images on disk that a compiled program reads where it takes their rows.

    As `normalize.StoredImages`, bit for bit, with the pixels on disk instead of on the device. The
    device waits while the host reads.

    Attributes:
      preprocessing: fitted to them.
      images: on disk.
    """

    preprocessing: normalize.Preprocessing
    images: DiskImages = flax.struct.field(pytree_node=False)

    def __getitem__(self, rows: Array) -> Array:
        """Network input float32 [B, H, W, C] of the rows int32 [B]."""
        pixels = jax.pure_callback(
            lambda wanted: self.images[np.asarray(wanted)],
            jax.ShapeDtypeStruct((*rows.shape, *self.images.shape[1:]), jnp.uint8),
            rows,
            vmap_method="broadcast_all",
        )
        return normalize.prepare(self.preprocessing, pixels)


@flax.struct.dataclass
class LabelRows:
    """One row of numbers per class, taken where a program takes the rows of images.

    Attributes:
      table: float32 [K, ...], such as the label logits of each class.
      labels: int32 [N].
    """

    table: Array
    labels: Array

    def __getitem__(self, rows: Array) -> Array:
        """float32 [B, ...] of the rows int32 [B]."""
        return self.table[self.labels[rows]]


def for_programs(tree: Any) -> Any:
    """The tree with what programs can take rows of in place of `PreprocessedImages`."""

    def one(leaf):
        if isinstance(leaf, PreprocessedImages):
            return StreamedImages(leaf.preprocessing, leaf.images)
        return leaf

    return jax.tree.map(one, tree)


def preprocess(
    preprocessing: normalize.Preprocessing, images: Images
) -> np.ndarray | PreprocessedImages:
    """Network input of all images, float32 [N, H, W, C]; of images on disk nothing is read."""
    if isinstance(images, DiskImages):
        return PreprocessedImages(images, preprocessing)
    return normalize.apply(preprocessing, images)
