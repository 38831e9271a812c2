"""Random resized crops and cutmix: the augmentation of block (ii) and of methods that crop.

As everywhere, what is drawn is a value of its own: drawing takes a key, applying takes the numbers,
and a view is reproduced by drawing again with the same key. A crop is resized by two small matrix
products for every sample, which is differentiable, free of scatter-adds and of static shape.

Images are [B, H, W, C] of any float dtype; boxes and patches are in pixels.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

from ltdd_jax.types import Array

FULL_AREA = (0.08, 1.0)  # share of the picture; of torchvision's RandomResizedCrop
SQUARE = (1.0, 1.0)  # width / height, relative to the picture's


@flax.struct.dataclass
class Boxes:
    """One box in each picture; the whole picture is (0, 0, H, W).

    Attributes:
      top: float32 [B], upper edge in pixels from the upper edge of the picture.
      left: float32 [B].
      height: float32 [B], above 0; top + height is at most H.
      width: float32 [B], above 0; left + width is at most W.
      mirrored: bool [B], whether the columns are read from right to left.
    """

    top: Array
    left: Array
    height: Array
    width: Array
    mirrored: Array


@flax.struct.dataclass
class Patches:
    """The pixels of each picture that cutmix replaces; an empty patch replaces nothing.

    Attributes:
      rows: int32 [B, 2], first row and the row after the last.
      cols: int32 [B, 2].
    """

    rows: Array
    cols: Array


def draw_boxes(
    key,
    batch_size: int,
    image_size: tuple[int, int],
    *,
    area: tuple[float, float] = FULL_AREA,
    ratio: tuple[float, float] = SQUARE,
    flip: bool = True,
) -> Boxes:
    """Draws a box for every sample: its area, then its shape, then its place.

    Args:
      key: PRNG key.
      batch_size: B.
      image_size: (H, W) in pixels.
      area: smallest and largest share of the picture's area, uniform, in (0, 1].
      ratio: smallest and largest width / height relative to the picture's, log-uniform; (1, 1)
        keeps the picture's own. A side that would not fit is cut to the picture's.
      flip: mirror every other box on average.

    Returns:
      Boxes that are not rounded to whole pixels.
    """
    height, width = image_size
    keys = jax.random.split(key, 2)
    numbers = jax.random.uniform(keys[0], (4, batch_size), jnp.float32)
    share = area[0] + (area[1] - area[0]) * numbers[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = jnp.exp(low + (high - low) * numbers[1])
    tall, wide = jnp.minimum(jnp.sqrt(share / shape), 1), jnp.minimum(jnp.sqrt(share * shape), 1)
    coin = jax.random.bernoulli(keys[1], 0.5, (batch_size,))
    return Boxes(
        top=(1 - tall) * numbers[2] * height,
        left=(1 - wide) * numbers[3] * width,
        height=tall * height,
        width=wide * width,
        mirrored=jnp.logical_and(coin, flip),
    )


def resize_crop(images, boxes: Boxes, size: tuple[int, int] | None = None):
    """Cuts the box out of every picture and stretches it to `size`, mirrored where it says so.

    Bilinear between pixel centres, where the pixels at the box's edge are repeated outwards, so
    that a box of whole pixels gives what cropping and then resizing gives. Shrinking takes no
    average over the pixels that fall together.

    Args:
      images: [B, H, W, C].
      boxes: of `draw_boxes`.
      size: (height, width) of the result; None is the pictures' own.

    Returns:
      [B, *size, C] of the images' dtype.
    """
    _, height, width, _ = images.shape
    out_height, out_width = size or (height, width)
    rows = _weigh_pixels(boxes.top, boxes.height, height, out_height, images.dtype)
    cols = _weigh_pixels(boxes.left, boxes.width, width, out_width, images.dtype)
    cols = jnp.where(boxes.mirrored[:, None, None], cols[:, ::-1], cols)
    highest = jax.lax.Precision.HIGHEST
    images = jnp.einsum("bir,brjc->bijc", rows, images, precision=highest)
    return jnp.einsum("bjs,bisc->bijc", cols, images, precision=highest)


def draw_patches(key, batch_size: int, image_size: tuple[int, int], alpha: float = 1.0) -> Patches:
    """Draws the patches of cutmix (arXiv 1905.04899, section 3.1), one for every sample.

    The share that is kept is Beta(alpha, alpha); the patch has the picture's shape and the other
    share of its area, its centre is uniform, and what sticks out is cut off.
    """
    kept_key, centre_key = jax.random.split(key)
    if alpha == 1:  # a uniform number is far cheaper than a Beta one
        kept = jax.random.uniform(kept_key, (batch_size,), jnp.float32)
    else:
        kept = jax.random.beta(kept_key, alpha, alpha, (batch_size,), jnp.float32)
    centres = jax.random.uniform(centre_key, (2, batch_size), jnp.float32)
    return place_patches(kept, centres, image_size)


def place_patches(kept, centres, image_size: tuple[int, int]) -> Patches:
    """Patches of the share 1 - kept [B] around the centres [2, B], both uniform in [0, 1)."""
    share = jnp.sqrt(1 - kept)
    rows, cols = (
        _cut_range(centre, share, side) for centre, side in zip(centres, image_size, strict=True)
    )
    return Patches(rows=rows, cols=cols)


def mix_patches(images, partners, patches: Patches):
    """Puts each partner's pixels into the patch of its image; both [B, H, W, C]."""
    inside = jnp.logical_and(
        _is_between(patches.rows, images.shape[1])[:, :, None],
        _is_between(patches.cols, images.shape[2])[:, None, :],
    )
    return jnp.where(inside[..., None], partners, images)


def _weigh_pixels(start, length, side: int, out: int, dtype):
    """[B, out, side]: row i holds the weights of the pixels around the i-th point of the box."""
    # Coordinates in half precision would be off by whole pixels.
    precise = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
    start, length = jnp.asarray(start, precise), jnp.asarray(length, precise)
    points = (jnp.arange(out, dtype=precise) + 0.5) / out
    at = start[:, None] + points[None] * length[:, None] - 0.5
    last = jnp.minimum(start + jnp.maximum(length - 1, 0), side - 1)
    at = jnp.clip(at, start[:, None], last[:, None])
    pixels = jnp.arange(side, dtype=precise)
    return jnp.maximum(1 - abs(at[:, :, None] - pixels[None, None]), 0).astype(dtype)


def _cut_range(centre, share, side: int):
    """int32 [B, 2]: round(share · side) pixels around the centre, without those outside."""
    size = jnp.round(share * side).astype(jnp.int32)
    first = jnp.floor(centre * side).astype(jnp.int32) - size // 2
    return jnp.clip(jnp.stack([first, first + size], axis=1), 0, side)


def _is_between(bounds, side: int):
    """bool [B, side]."""
    pixels = jnp.arange(side, dtype=jnp.int32)
    return jnp.logical_and(pixels[None] >= bounds[:, :1], pixels[None] < bounds[:, 1:])
