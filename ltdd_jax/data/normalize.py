"""Pixels to network input: channel normalisation and ZCA whitening (method §2, arXiv 2408.14506).

ZCA equals kornia's ZCAWhitening: covariance over N - 1, `eps` added to the eigenvalues. Images are
flattened in (row, column, channel) order; the whitened images do not depend on that order.
"""

import dataclasses
import functools
import io
import math
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
from etils import epath

from ltdd_jax.data import zca
from ltdd_jax.data.disk_images import Images
from ltdd_jax.data.request import check_memory
from ltdd_jax.types import Array, UserError

_MAX_FEATURES = 64 * 64 * 3  # up to which `choose_whitening` whitens
_RANGE_ROWS = 4096  # images that say which values are usual
_BLOCK_VALUES = 2**23  # pixel values converted at once: 64 MiB in float64
_PRODUCT = functools.partial(jnp.matmul, precision="highest")  # on devices
_SPOKEN_BYTES = 2**28  # of memory; whitening that takes more is said beforehand


@flax.struct.dataclass
class Preprocessing:
    """A fitted map from pixels in [0, 1] to network input; (0, 1) alone is the identity.

    Whitening is kept as two matrices, or as the directions and variances of few images
    (`data/zca.py`), whichever is smaller.

    Attributes:
      mean, std: float32 [C], of pixels in [0, 1].
      zca_mean: float32 [D] with D = H·W·C, or None without whitening.
      zca_transform: float32 [D, D], symmetric, or None; likewise the next.
      zca_inverse: float32 [D, D], symmetric.
      zca_basis: float32 [D, R], orthonormal columns, or None; likewise the next two.
      zca_values: float32 [R], variances along the columns.
      zca_eps: float32 scalar, added to the variances.
    """

    mean: Array
    std: Array
    zca_mean: Array | None = None
    zca_transform: Array | None = None
    zca_inverse: Array | None = None
    zca_basis: Array | None = None
    zca_values: Array | None = None
    zca_eps: Array | None = None

    @property
    def whitens(self) -> bool:
        """Whether ZCA is a part of it."""
        return self.zca_mean is not None


def choose_whitening(image_shape: tuple[int, int, int], num_rows: int) -> tuple[bool, str]:
    """Whether ZCA is sensible for a data set, and why; what `data.whiten` decides by itself.

    Up to 64 x 64 colour pixels ZCA is what the literature uses. Above that it takes hours and
    hundreds of gigabytes for many images, and for few it fits their noise: channel normalisation
    does better there. The free memory has no say: a run is the same on every machine, or refused.

    Args:
      image_shape: (H, W, C).
      num_rows: training images.

    Returns:
      Whether to whiten, and the reason as part of a sentence.
    """
    height, width, _ = image_shape
    size = f"images of {width} x {height} pixels"
    if num_rows < 2:
        return False, "ZCA needs at least two images"
    if math.prod(image_shape) > _MAX_FEATURES:
        return False, f"ZCA is not sensible for {size}, which are more than 64 x 64"
    return True, f"ZCA is customary for {size}"


def whitening_bytes(image_shape: tuple[int, ...], num_rows: int) -> int:
    """Memory that fitting ZCA to that many images takes, beyond the images."""
    return zca.fit_bytes(num_rows, math.prod(image_shape)) + 16 * _BLOCK_VALUES


def fit(
    train_images: Images,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    whiten: bool = True,
    zca_eps: float = 0.1,
    say: Callable[[str], None] = lambda text: None,
    check: Callable[[], None] = lambda: None,
) -> Preprocessing:
    """Fits the preprocessing to the (long-tailed) training images.

    Args:
      train_images: [N, H, W, C], uint8 in 0..255, or floating with the same pixels in [0, 1].
      mean, std: C numbers each, of pixels in [0, 1]; None or () leaves the pixels un-normalised.
      whiten: whether ZCA follows, fitted to the normalised images.
      zca_eps: added to the eigenvalues of the covariance, > 0.
      say: called with a sentence before whitening that takes longer than a moment, then every few
        seconds.
      check: called often while whitening; may raise to stop.

    Raises:
      UserError: mean or std of a wrong length, std not positive, zca_eps not positive, fewer than
        two images to whiten, or too little memory for it.
    """
    channels = train_images.shape[-1]
    means = np.asarray(mean or (0.0,) * channels, np.float32)
    stds = np.asarray(std or (1.0,) * channels, np.float32)
    if means.shape != (channels,) or stds.shape != (channels,) or not np.all(stds > 0):
        raise UserError(
            f"data mean {means.tolist()} and std {stds.tolist()} must have one number for each of "
            f"the {channels} channels, std > 0."
        )
    pre = Preprocessing(mean=means, std=stds)
    if not whiten:
        return pre
    if not zca_eps > 0:
        raise UserError(f"data.zca_eps is {zca_eps}, but must be > 0.")
    if len(train_images) < 2:
        raise UserError("ZCA needs at least two training images; set --config.data.whiten=off.")
    return _fit_zca(pre, train_images, zca_eps, say, check)


def apply(pre: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Pixels -> network input.

    Args:
      pre: the fitted preprocessing.
      images: [N, H, W, C], uint8 in 0..255, or floating with the same pixels in [0, 1].

    Returns:
      float32 [N, H, W, C]. Memory beyond it is one block of rows.

    Raises:
      UserError: too little memory for the result.
    """
    check_memory(
        4.0 * images.size,
        f"{len(images)} images of {images.shape[2]} x {images.shape[1]} pixels as network input",
        "set a smaller --config.data.image_size or use fewer images.",
    )
    result = np.empty(images.shape, np.float32)
    for rows in _blocks(images):
        block = _normalize(pre, images[rows])
        if pre.whitens:
            block = np.asarray(_whiten(pre, _flatten(block) - pre.zca_mean, np.matmul))
        result[rows] = block.reshape(result[rows].shape)
    return result


@flax.struct.dataclass
class StoredImages:
    """Pixels on a device that become network input where their rows are taken.

    A quarter of the memory of finished network input, for one product with the [D, D] transform
    (or two with the [D, R] basis) per batch.

    Attributes:
      pixels: uint8 [N, H, W, C].
      preprocessing: fitted to them.
    """

    pixels: Array
    preprocessing: Preprocessing

    def __getitem__(self, rows: Array) -> Array:
        """Network input float32 [B, H, W, C] of the rows int32 [B], equal to that of `apply`."""
        return prepare(self.preprocessing, self.pixels[rows])


def prepare(pre: Preprocessing, pixels: Array) -> Array:
    """`apply` as a part of compiled programs: pixels uint8 [B, H, W, C] -> float32 input."""
    images = pixels.astype(jnp.float32) / 255
    channels = (1,) * (images.ndim - 1) + (-1,)
    images = (images - pre.mean.reshape(channels)) / pre.std.reshape(channels)
    if pre.zca_mean is None:
        return images
    flat = images.reshape(len(images), -1) - pre.zca_mean.reshape(1, -1)
    return _whiten(pre, flat, _PRODUCT).reshape(images.shape)


def project(pre: Preprocessing, images: Array, rounded: Array | bool = False) -> Array:
    """The network input whose pixels are clipped to [0, 1], as a part of compiled programs.

    What is added to the images is the change of their pixels, normalised and whitened, so images
    with pixels in range stay bit-equal.

    Args:
      pre: the fitted preprocessing.
      images: float32 [B, H, W, C], network input.
      rounded: scalar; whether the pixels are rounded to 8 bits too.

    Returns:
      float32 [B, H, W, C].
    """
    std, mean = (x.reshape((1,) * (images.ndim - 1) + (-1,)) for x in (pre.std, pre.mean))
    normal = jnp.asarray(images)
    if pre.zca_mean is not None:
        flat = _unwhiten(pre, normal.reshape(len(normal), -1), _PRODUCT)
        normal = jnp.asarray(flat + pre.zca_mean.reshape(1, -1)).reshape(images.shape)
    pixels = normal * std + mean
    wanted = jnp.clip(pixels, 0.0, 1.0)
    wanted = jnp.where(rounded, jnp.rint(wanted * 255) / 255, wanted)
    change = (wanted - pixels) / std
    if pre.whitens:
        whitened = _whiten(pre, change.reshape(len(change), -1), _PRODUCT)
        change = jnp.asarray(whitened).reshape(images.shape)
    return images + change


def invert(pre: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Network input -> viewable pixels, uint8 [N, H, W, C]: `apply` undone, clipped and rounded."""
    images = np.asarray(images)
    pixels = np.empty(images.shape, np.uint8)
    for rows in _blocks(images):
        block = images[rows].astype(np.float32)
        if pre.zca_mean is not None:
            flat = _unwhiten(pre, _flatten(block), np.matmul) + pre.zca_mean
            block = np.asarray(flat)
        block = block.reshape(pixels[rows].shape) * pre.std + pre.mean
        pixels[rows] = np.rint(np.clip(block, 0.0, 1.0) * 255).astype(np.uint8)
    return pixels


def find_range(pre: Preprocessing, inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest network input of every channel, float32 [C] each.

    Without whitening what pixels 0 and 1 become. Whitening mixes pixels, so that there is no such
    box; in its place stand the extremes of `inputs` [N, H, W, C], of 4096 of them where there are
    more.
    """
    if pre.whitens:
        rows = np.linspace(0, len(inputs) - 1, min(len(inputs), _RANGE_ROWS)).astype(int)
        some = inputs[rows]
        return some.min(axis=(0, 1, 2)), some.max(axis=(0, 1, 2))
    mean, std = np.asarray(pre.mean), np.asarray(pre.std)
    return (0 - mean) / std, (1 - mean) / std


def mismatch_test(
    pre: Preprocessing, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """The released CIFAR-10-LT code's preprocessing of the test set (method §2, D3).

    There, test images are normalised with `mean` and `std` and then whitened with the ZCA of the
    *un-normalised* training images `pre`. Only for comparison with published numbers.
    """
    return dataclasses.replace(
        pre, mean=np.asarray(mean, np.float32), std=np.asarray(std, np.float32)
    )


def save(pre: Preprocessing, path: epath.PathLike) -> None:
    """Writes an .npz file; it appears complete or not at all."""
    path = epath.Path(path)
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value for key, value in vars(pre).items() if value is not None})
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: epath.PathLike) -> Preprocessing:
    """Reads what `save` wrote, as float32 NumPy arrays.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = epath.Path(path)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            found = Preprocessing(**archive)
        _check_complete(found)
        return found
    except Exception as error:  # a damaged file raises errors of zipfile, NumPy or the dataclass
        raise UserError(
            f"{path} cannot be read ({error!r}); run the stage that writes it again."
        ) from error


def _check_complete(pre: Preprocessing) -> None:
    """Raises ValueError where an array is missing: a damaged archive can hide one."""
    matrices = (pre.zca_transform, pre.zca_inverse)
    factors = (pre.zca_basis, pre.zca_values, pre.zca_eps)
    has = [[part is not None for part in parts] for parts in (matrices, factors)]
    if any(len(set(each)) > 1 for each in has) or has[0][0] + has[1][0] != pre.whitens:
        raise ValueError("arrays of the whitening are missing")


def _fit_zca(
    pre: Preprocessing,
    images: Images,
    eps: float,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> Preprocessing:
    """T = U (s + eps)^(-1/2) Uᵀ and its inverse, from Cov = U s Uᵀ, as matrices or factors."""
    num, height, width, _ = images.shape
    needed = whitening_bytes(images.shape[1:], num)
    check_memory(
        needed,
        f"whitening (ZCA) {num} images of {width} x {height} pixels",
        "set --config.data.whiten=off, with --config.data.normalize=true, or a smaller "
        "--config.data.image_size.",
    )
    if needed > _SPOKEN_BYTES:
        say(f"whitening (ZCA) {num} images of {width} x {height} pixels, {needed / 1e9:.1f} GB")

    def rows() -> Iterator[np.ndarray]:
        return (_flatten(_normalize(pre, images[block])) for block in _blocks(images))

    features = math.prod(images.shape[1:])
    mean = zca.fit_mean(rows, num, check)
    pre = dataclasses.replace(pre, zca_mean=mean.astype(np.float32))
    if zca.is_low_rank(num, features):
        basis, values = zca.fit_basis(rows, mean, num, say=say, check=check)
        return dataclasses.replace(
            pre,
            zca_basis=basis.astype(np.float32),
            zca_values=values.astype(np.float32),
            zca_eps=np.asarray(eps, np.float32),
        )
    covariance = zca.fit_covariance(rows, mean, num, say=say, check=check)
    transform, inverse = zca.fit_matrices(covariance, eps, say=say, check=check)
    return dataclasses.replace(
        pre,
        zca_transform=transform.astype(np.float32),
        zca_inverse=inverse.astype(np.float32),
    )


def _whiten(pre: Preprocessing, centred: Array, product: Callable) -> Array:
    """Rows [B, D] without their mean -> whitened rows, by NumPy's or JAX's matrix product."""
    if pre.zca_basis is None or pre.zca_values is None or pre.zca_eps is None:
        return product(centred, pre.zca_transform)
    outside = 1 / pre.zca_eps**0.5
    gains = 1 / (pre.zca_values + pre.zca_eps) ** 0.5 - outside
    along = product(centred, pre.zca_basis) * gains.reshape(1, -1)
    return outside * centred + product(along, pre.zca_basis.T)


def _unwhiten(pre: Preprocessing, white: Array, product: Callable) -> Array:
    """`_whiten` undone, for rows [B, D]."""
    if pre.zca_basis is None or pre.zca_values is None or pre.zca_eps is None:
        return product(white, pre.zca_inverse)
    outside = pre.zca_eps**0.5
    gains = (pre.zca_values + pre.zca_eps) ** 0.5 - outside
    along = product(white, pre.zca_basis) * gains.reshape(1, -1)
    return outside * white + product(along, pre.zca_basis.T)


def _normalize(pre: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Pixels [B, H, W, C] -> float32, channel mean and std removed."""
    if images.dtype == np.uint8:
        images = images / np.float32(255)
    return (images.astype(np.float32, copy=False) - pre.mean) / pre.std


def _flatten(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _blocks(images: Images) -> list[slice]:
    """Slices over the rows, each about `_BLOCK_VALUES` values long."""
    step = max(1, _BLOCK_VALUES // max(1, int(np.prod(images.shape[1:]))))
    return [slice(start, start + step) for start in range(0, len(images), step)]
