"""Images that hold f x f smaller pictures each: made, cut up and enlarged.

A picture is called a cell. Cells are counted row by row, and lists of them are cell-major: all
first cells, then all second ones, as Zhao et al. (CVPR 2023, section 3.2) list theirs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.types import Array, UserError


def check_sides(image_shape: tuple[int, int, int], factor: int, field: str) -> None:
    """Raises UserError, naming `field`, where images cannot be cut into f x f equal cells."""
    height, width, _ = image_shape
    if height % factor or width % factor:
        raise UserError(
            f"--config.{field}={factor} cuts every image into {factor} x {factor} equal pictures, "
            f"and images of {height} x {width} pixels cannot be cut so: set another "
            f"--config.data.image_size, a multiple of {factor}"
        )


def expand(images: Array, factor: int) -> Array:
    """The cells of every image, enlarged to its size.

    Args:
      images: floating [S, H, W, C]; H and W are multiples of f.
      factor: f.

    Returns:
      [f²·S, H, W, C], cell-major; bilinear between pixel centres, as `align_corners=False`.
    """
    cells = split(images, factor)
    if factor == 1:
        return cells
    shape = (len(cells), *images.shape[1:])
    return jax.image.resize(cells, shape, "linear", precision=jax.lax.Precision.HIGHEST)


def repeat_labels(labels: Array, factor: int) -> Array:
    """Labels [S, ...] of what `expand` returns: [f²·S, ...]."""
    return jnp.tile(labels, (factor**2, *(1,) * (labels.ndim - 1)))


def split(images: Array, factor: int) -> Array:
    """The cells of every image as they are: [S, H, W, C] -> [f²·S, H/f, W/f, C], cell-major."""
    rows, height, width, channels = images.shape
    size = (height // factor, width // factor)
    parts = images.reshape(rows, factor, size[0], factor, size[1], channels)
    return parts.transpose(1, 3, 0, 2, 4, 5).reshape(-1, *size, channels)


def assemble(cells: Array, factor: int) -> Array:
    """Inverse of `split`."""
    _, height, width, channels = cells.shape
    parts = cells.reshape(factor, factor, -1, height, width, channels)
    return parts.transpose(2, 0, 3, 1, 4, 5).reshape(-1, factor * height, factor * width, channels)


def map_cells(
    function: Callable[[np.ndarray], np.ndarray], images: np.ndarray, factor: int
) -> np.ndarray:
    """A function of whole images, such as the inverse of a whitening, for images of cells.

    Args:
      function: [N, H, W, C] -> [N, H, W, C]; it may mix the pixels of an image.
      images: [S, H, W, C]. Every cell is enlarged, put through the function and made smaller.
      factor: f; 1 is the function itself.

    Returns:
      [S, H, W, C] of the dtype that the function returns.
    """
    if factor == 1:
        return function(images)
    found = function(np.asarray(expand(images, factor)))
    small = shrink(found.astype(np.float32), factor, "linear")
    small = np.rint(small) if np.issubdtype(found.dtype, np.integer) else small
    return np.asarray(assemble(small.astype(found.dtype), factor))


def pack(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Images that hold f x f of the given pictures each, made smaller bilinearly.

    Args:
      pictures: float32 [f²·S, H, W, C], cell-major.
      factor: f; 1 leaves them as they are.

    Returns:
      float32 [S, H, W, C].
    """
    if factor == 1:
        return pictures
    return np.asarray(assemble(shrink(pictures, factor, "linear"), factor))


def shrink(images: np.ndarray, factor: int, kind: str) -> np.ndarray:
    """Images of the size of a cell, NumPy float32 [N, H/f, W/f, C].

    Args:
      images: float32 [N, H, W, C].
      factor: f.
      kind: "linear", between the nearest pixels without smoothing (for f = 2 the mean of 2 x 2
        pixels), or "nearest", every f-th pixel from the first.
    """
    if kind == "nearest":
        return np.asarray(images[:, ::factor, ::factor])
    rows, height, width, channels = images.shape
    shape = (rows, height // factor, width // factor, channels)
    precision = jax.lax.Precision.HIGHEST
    return np.asarray(jax.image.resize(images, shape, kind, antialias=False, precision=precision))
