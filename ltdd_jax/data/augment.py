"""Differentiable augmentation (DSA, arXiv 2102.08259; method section "DSA augmentation").

One operation is drawn for the whole batch, its numbers for every sample, or once for all samples
("Siamese"). Operations are functions of (images, drawn numbers) without randomness; they are affine
in the images, and both they and their gradients avoid scatter-adds, so results are reproducible bit
by bit on accelerators.

Images are [B, H, W, C] of any float dtype and any number of channels; drawn numbers are [B].
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.types import Array, UserError

OPS = ("color", "crop", "cutout", "flip", "scale", "rotate")

CROP_RATIO = 0.125  # largest shift, relative to the side
CUTOUT_RATIO = 0.5  # side of the hole, relative to the side
SCALE_RATIO = 1.2  # scale factors lie in [1/1.2, 1.2)
MAX_ANGLE = math.radians(15)


@flax.struct.dataclass
class Draws:
    """All random numbers of one batch; every operation reads only its own.

    Attributes:
      op: int32 scalar, index into the operations of the strategy.
      brightness: float32 [B] in [0, 1).
      saturation: float32 [B] in [0, 1).
      contrast: float32 [B] in [0, 1).
      shift_rows: int32 [B] in [-s, s], s = int(0.125 H + 0.5).
      shift_cols: int32 [B], likewise with W.
      hole_row: int32 [B], centre of the hole in [0, H]; [0, H - 1] when its side is odd.
      hole_col: int32 [B], likewise with W.
      flip: float32 [B] in [0, 1).
      scale_rows: float32 [B] in [1/1.2, 1.2), factor of the row axis (s_y in the method).
      scale_cols: float32 [B] in [1/1.2, 1.2), factor of the column axis (s_x).
      angle: float32 [B] in [-15, 15) degrees, stored in radians.
    """

    op: Array
    brightness: Array
    saturation: Array
    contrast: Array
    shift_rows: Array
    shift_cols: Array
    hole_row: Array
    hole_col: Array
    flip: Array
    scale_rows: Array
    scale_cols: Array
    angle: Array


def parse_strategy(strategy: str) -> tuple[str, ...]:
    """Operations named in `strategy`, e.g. 'color_crop_cutout_flip_scale_rotate'; '' means none.

    Raises:
      UserError: a name is not in `OPS`.
    """
    names = tuple(strategy.split("_")) if strategy else ()
    for name in names:
        if name not in OPS:
            raise UserError(
                f"--config.augment.strategy names the unknown operation {name!r}: join names from "
                f"{', '.join(OPS)} by '_', or leave it empty for no augmentation"
            )
    return names


def draw(key, batch_size: int, image_size: tuple[int, int], ops: tuple[str, ...] = OPS) -> Draws:
    """Draws the numbers of one batch.

    Args:
      key: PRNG key.
      batch_size: B.
      image_size: (H, W) in pixels.
      ops: operations to choose from, as `parse_strategy` returns them.
    """
    height, width = image_size
    shift_rows, shift_cols = _rounded(height, CROP_RATIO), _rounded(width, CROP_RATIO)
    whole = {  # both ends included
        "shift_rows": (-shift_rows, shift_rows),
        "shift_cols": (-shift_cols, shift_cols),
        "hole_row": (0, height - _rounded(height, CUTOUT_RATIO) % 2),
        "hole_col": (0, width - _rounded(width, CUTOUT_RATIO) % 2),
    }
    real = {
        "brightness": (0.0, 1.0),
        "saturation": (0.0, 1.0),
        "contrast": (0.0, 1.0),
        "flip": (0.0, 1.0),
        "scale_rows": (1 / SCALE_RATIO, SCALE_RATIO),
        "scale_cols": (1 / SCALE_RATIO, SCALE_RATIO),
        "angle": (-MAX_ANGLE, MAX_ANGLE),
    }

    # All of a kind in one call: the compiler takes a fifth of the time, in every program that
    # augments.
    def draw_integers(key, low, high):
        return jax.random.randint(key, (batch_size,), low, high + 1, jnp.int32)

    def draw_uniform(key, low, high):
        return jax.random.uniform(key, (batch_size,), jnp.float32, low, high)

    def draw_all(function, keys, bounds, dtype):
        low, high = np.array(list(bounds.values()), dtype).T
        return dict(zip(bounds, jax.vmap(function)(keys, low, high), strict=True))

    keys = jax.random.split(key, 12)
    return Draws(
        op=jax.random.randint(keys[0], (), 0, max(len(ops), 1), jnp.int32),
        **draw_all(draw_integers, keys[4:8], whole, np.int32),
        **draw_all(draw_uniform, jnp.concatenate([keys[1:4], keys[8:]]), real, np.float32),
    )


def apply(draws: Draws, images, ops: tuple[str, ...] = OPS):
    """Applies operation `ops[draws.op]` to images [B, H, W, C]; no `ops` leave them unchanged."""
    if not ops:
        return images
    branches = _list_operations(draws)
    return jax.lax.switch(draws.op, [branches[name] for name in ops], images)


def _list_operations(draws: Draws) -> dict:
    """Name -> function of images, with the drawn numbers."""
    return {
        "color": lambda x: color(x, draws.brightness, draws.saturation, draws.contrast),
        "crop": lambda x: crop(x, draws.shift_rows, draws.shift_cols),
        "cutout": lambda x: cutout(x, draws.hole_row, draws.hole_col),
        "flip": lambda x: flip(x, draws.flip),
        "scale": lambda x: scale(x, draws.scale_rows, draws.scale_cols),
        "rotate": lambda x: rotate(x, draws.angle),
    }


def make_augment(strategy: str, *, always: str = "", siamese: bool = False):
    """Function (key, images [B, H, W, C]) -> images that draws and applies one operation.

    Args:
      strategy: operations of which one is drawn, see `parse_strategy`.
      always: operations that are all applied before it, as in IDC (Kim et al., ICML 2022).
      siamese: whether all images of a call share one set of numbers (DSA, section 3.2). Calls with
        the same key then transform batches of any size alike, so that real and synthetic images
        can be compared; without it every image has numbers of its own.

    Raises:
      UserError: an operation is unknown.
    """
    ops, first = parse_strategy(strategy), parse_strategy(always)

    def augment(key, images):
        if not ops and not first:
            return images
        draws = draw(key, 1 if siamese else len(images), images.shape[1:3], ops)
        if siamese:
            draws = jax.tree.map(lambda x: jnp.broadcast_to(x, x.shape and (len(images),)), draws)
        for name in first:
            images = _list_operations(draws)[name](images)
        return apply(draws, images, ops)

    return augment


def make_crop_flip(*, mirror: bool):
    """Function (key, images [B, H, W, C]) -> images: every image shifted, then mirrored at random.

    Shifts reach an eighth of the side, 4 pixels of 32, and zeros follow, as `crop` has it.

    Args:
      mirror: whether images are mirrored; a mirrored digit is another sign.
    """

    def augment(key, images):
        numbers = draw(key, len(images), images.shape[1:3])
        images = crop(images, numbers.shift_rows, numbers.shift_cols)
        return flip(images, numbers.flip) if mirror else images

    return augment


def brightness(images, u):
    """x + u - 0.5, u in [0, 1)."""
    return images + (_per_sample(u, images) - 0.5)


def saturation(images, u):
    """Scales the distance of every pixel from its mean over channels by 2u, u in [0, 1)."""
    mean = images.mean(axis=3, keepdims=True)
    return (images - mean) * (2 * _per_sample(u, images)) + mean


def contrast(images, u):
    """Scales the distance from the mean of the image by u + 0.5, u in [0, 1)."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return (images - mean) * (_per_sample(u, images) + 0.5) + mean


def color(images, u_brightness, u_saturation, u_contrast):
    """Brightness, then saturation, then contrast."""
    return contrast(saturation(brightness(images, u_brightness), u_saturation), u_contrast)


def crop(images, shift_rows, shift_cols):
    """out[i, j] = x[i + shift_rows, j + shift_cols], 0 outside; shifts up to int(side/8 + 0.5)."""
    margin = [_rounded(side, CROP_RATIO) for side in images.shape[1:3]]
    padding = ((0, 0), (margin[0],) * 2, (margin[1],) * 2, (0, 0))

    def window(image, row, col):
        return jax.lax.dynamic_slice(image, (row, col, jnp.zeros_like(row)), images.shape[1:])

    def shifted(x, sign):
        rows, cols = margin[0] + sign * shift_rows, margin[1] + sign * shift_cols
        return jax.vmap(window)(jnp.pad(x, padding), rows, cols)

    return _linear(images, lambda x: shifted(x, 1), lambda x: shifted(x, -1))


def cutout(images, row, col):
    """Zeroes a square of side k = int(side/2 + 0.5) centred at (row, col), cut at the borders."""
    hole = jnp.logical_and(
        _in_hole(row, images.shape[1])[:, :, None], _in_hole(col, images.shape[2])[:, None, :]
    )
    return jnp.where(hole[..., None], jnp.zeros_like(images), images)


def flip(images, u):
    """Mirrors the columns where u < 0.5."""
    return jnp.where((u < 0.5)[:, None, None, None], images[:, :, ::-1], images)


def scale(images, rows, cols):
    """Resamples around the centre: out[i, j] = x[rows · i, cols · j] in centred coordinates.

    Bilinear, 0 outside. Factors above 1 shrink the content, factors below 1 enlarge it.
    """
    _, height, width, _ = images.shape
    highest = jax.lax.Precision.HIGHEST
    images = jnp.einsum(
        "bir,brjc->bijc", _interpolation(rows, height, images.dtype), images, precision=highest
    )
    return jnp.einsum(
        "bjs,bisc->bijc", _interpolation(cols, width, images.dtype), images, precision=highest
    )


def rotate(images, angle):
    """Rotates around the centre by `angle` radians; bilinear, 0 outside.

    With (X, Y) in [-1, 1] the coordinates of the output pixel (columns, rows; the ends are pixel
    centres), the source is (X cos - Y sin, X sin + Y cos). So an image that is not square is also
    sheared, as in the reference.
    """
    _, height, width, _ = images.shape
    dtype = _at_least_float32(images.dtype)
    angle = jnp.asarray(angle, dtype)[:, None, None]
    aspect = max(width - 1, 1) / max(height - 1, 1)
    sin, cos = jnp.sin(angle), jnp.cos(angle)

    def source(row, col):
        row, col = row - (height - 1) / 2, col - (width - 1) / 2
        return (
            sin / aspect * col + cos * row + (height - 1) / 2,
            cos * col - sin * aspect * row + (width - 1) / 2,
        )

    def target(row, col):  # inverse of `source`
        row, col = row - (height - 1) / 2, col - (width - 1) / 2
        return (
            cos * row - sin / aspect * col + (height - 1) / 2,
            cos * col + sin * aspect * row + (width - 1) / 2,
        )

    row = jnp.arange(height, dtype=dtype)[None, :, None]
    col = jnp.arange(width, dtype=dtype)[None, None, :]

    def forward(x):
        at_row, at_col = source(row, col)
        first = (jnp.floor(at_row), jnp.floor(at_col))
        return _window_sum(x, first, (2, 2), lambda r, c: _tent(r - at_row) * _tent(c - at_col))

    def backward(x):
        # Output pixels that read input pixel (row, col) lie in the image of a square of side 2
        # under `target`: within `reach` of its centre.
        reach = abs(cos) + abs(sin) / aspect, abs(cos) + abs(sin) * aspect
        first = [jnp.ceil(at - far) for at, far in zip(target(row, col), reach, strict=True)]
        sizes = [1 + math.floor(2 * math.hypot(1, a)) for a in (1 / aspect, aspect)]

        def weight(r, c):
            at_row, at_col = source(r, c)
            return _tent(row - at_row) * _tent(col - at_col)

        return _window_sum(x, first, sizes, weight)

    return _linear(images, forward, backward)


def _rounded(side: int, ratio: float) -> int:
    return int(side * ratio + 0.5)


def _per_sample(numbers, images):
    return jnp.asarray(numbers, images.dtype)[:, None, None, None]


def _in_hole(centre, side: int):
    """bool [B, side], pixels in the k = int(side/2 + 0.5) pixels that start at centre - k // 2."""
    size = _rounded(side, CUTOUT_RATIO)
    offset = jnp.arange(side, dtype=jnp.int32)[None, :] - (centre - size // 2)[:, None]
    return jnp.logical_and(offset >= 0, offset < size)


def _tent(distance):
    return jnp.maximum(1 - abs(distance), 0)


def _at_least_float32(dtype):
    """Coordinates in half precision would be off by whole pixels."""
    return dtype if jnp.finfo(dtype).bits > 32 else jnp.float32


def _interpolation(factor, side: int, dtype):
    """[B, side, side]: row i holds the weights of the pixels around centre + factor · (i - centre).

    Pixels outside have no column, which is the zero padding.
    """
    precise = _at_least_float32(dtype)
    pixels, centre = jnp.arange(side, dtype=precise), (side - 1) / 2
    source = jnp.asarray(factor, precise)[:, None] * (pixels - centre)[None, :] + centre
    return _tent(source[:, :, None] - pixels[None, None, :]).astype(dtype)


def _window_sum(images, first, sizes, weight):
    """Σ weight(r, c) · images[:, r, c] over a small window of pixels, 0 outside the image.

    Args:
      images: [B, H, W, C].
      first: (row, column) of the window's corner for every output pixel, whole floats [B, H, W].
      sizes: (rows, columns) of the window.
      weight: (row, column) -> weights [B, H, W].
    """
    batch, height, width, channels = images.shape
    flat = images.reshape(batch, height * width, channels)
    total = jnp.zeros_like(images)
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            row, col = first[0] + i, first[1] + j
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            weights = jnp.where(inside, weight(row, col), 0).astype(images.dtype)
            index = jnp.clip(row, 0, height - 1) * width + jnp.clip(col, 0, width - 1)
            index = index.astype(jnp.int32).reshape(batch, height * width, 1)
            pixels = jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds")
            total += weights[..., None] * pixels.reshape(images.shape)
    return total


def _linear(inputs, fun, transpose):
    """`fun(inputs)`, a linear map whose derivative in reverse is `transpose`.

    JAX would transpose a gather to a scatter-add, slow on CPUs and in random order on GPUs.
    `custom_linear_solve` accepts any pair of mutually transposed maps and, unlike `custom_vjp`,
    also takes forward derivatives and `vmap`. Its first argument would be the inverse map; it is
    needed only for derivatives by what `fun` closes over, and drawn numbers are constants.
    """
    return jax.lax.custom_linear_solve(
        lambda x: x,
        inputs,
        solve=lambda _, x: fun(x),
        transpose_solve=lambda _, x: transpose(x),
    )
