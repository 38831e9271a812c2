"""Pixels to network input: channel normalisation and ZCA whitening (method §2, arXiv 2408.14506).

ZCA equals kornia's ZCAWhitening: covariance over N - 1, `eps` added to the eigenvalues. Images are
flattened in (row, column, channel) order; the whitened images do not depend on that order.
"""

import io
import uuid

import flax.struct
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from etils import epath

from ltdd_jax.types import Array, UserError

CIFAR_CONSTANTS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET_CONSTANTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KNOWN_CONSTANTS = {  # by the start of the source's name
    "cifar": CIFAR_CONSTANTS,  # CIFAR-100 too: the published runs used CIFAR-10's for both
    "tfds:imagenet": IMAGENET_CONSTANTS,
    "tfds:tiny_imagenet": IMAGENET_CONSTANTS,
}
_BLOCK_VALUES = 2**23  # pixel values converted at once: 64 MiB in float64


@flax.struct.dataclass
class Preprocessing:
    """A fitted map from pixels in [0, 1] to network input; (0, 1, None) is the identity.

    Attributes:
      mean, std: float32 [C], of pixels in [0, 1].
      zca_mean: float32 [D] with D = H·W·C, or None without whitening; likewise the next two.
      zca_transform: float32 [D, D], symmetric.
      zca_inverse: float32 [D, D], symmetric.
    """

    mean: Array
    std: Array
    zca_mean: Array | None = None
    zca_transform: Array | None = None
    zca_inverse: Array | None = None


def default_constants(
    source_name: str, train_images: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel mean and std of a source: the customary constants, else those of `train_images`.

    Args:
      source_name: as in `sources.load_source`.
      train_images: uint8 [N, H, W, C]; looked at only for sources without customary constants.

    Returns:
      mean and std, C numbers each, of pixels in [0, 1].
    """
    for start, constants in _KNOWN_CONSTANTS.items():
        if source_name.startswith(start):
            return constants
    channels = train_images.shape[-1]
    histograms = [np.bincount(train_images[..., c].ravel(), minlength=256) for c in range(channels)]
    levels = np.arange(256) / 255.0
    means = [float(np.average(levels, weights=h)) for h in histograms]
    stds = [
        float(np.sqrt(np.average((levels - mean) ** 2, weights=h)))
        for mean, h in zip(means, histograms, strict=True)
    ]
    return tuple(means), tuple(std or 1.0 for std in stds)  # a constant channel only shifts


def fit(
    train_images: np.ndarray,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    whiten: bool = True,
    zca_eps: float = 0.1,
) -> Preprocessing:
    """Fits the preprocessing to the (long-tailed) training images.

    Args:
      train_images: [N, H, W, C], uint8 in 0..255, or floating with the same pixels in [0, 1].
      mean, std: C numbers each, of pixels in [0, 1]; None or () leaves the pixels un-normalised.
      whiten: whether ZCA follows, fitted to the normalised images.
      zca_eps: added to the eigenvalues of the covariance, > 0.

    Raises:
      UserError: mean or std of a wrong length, std not positive, zca_eps not positive, or fewer
        than two images to whiten.
    """
    channels = train_images.shape[-1]
    mean = np.asarray(mean or (0.0,) * channels, np.float32)
    std = np.asarray(std or (1.0,) * channels, np.float32)
    if mean.shape != (channels,) or std.shape != (channels,) or not np.all(std > 0):
        raise UserError(
            f"data mean {mean.tolist()} and std {std.tolist()} must have one number for each of "
            f"the {channels} channels, std > 0."
        )
    pre = Preprocessing(mean=mean, std=std)
    if not whiten:
        return pre
    if not zca_eps > 0:
        raise UserError(f"data.zca_eps is {zca_eps}, but must be > 0.")
    if len(train_images) < 2:
        raise UserError("ZCA needs at least two training images; set --config.data.whiten=False.")
    return _fit_zca(pre, train_images, zca_eps)


def apply(pre: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Pixels -> network input.

    Args:
      pre: the fitted preprocessing.
      images: [N, H, W, C], uint8 in 0..255, or floating with the same pixels in [0, 1].

    Returns:
      float32 [N, H, W, C]. Memory beyond it is one block of rows.
    """
    result = np.empty(images.shape, np.float32)
    for rows in _blocks(images):
        block = _normalize(pre, images[rows])
        if pre.zca_transform is not None:
            block = (_flatten(block) - pre.zca_mean) @ pre.zca_transform
        result[rows] = block.reshape(result[rows].shape)
    return result


@flax.struct.dataclass
class StoredImages:
    """Pixels on a device that become network input where their rows are taken.

    A quarter of the memory of finished network input, for one product with the [D, D] transform
    per batch.

    Attributes:
      pixels: uint8 [N, H, W, C].
      preprocessing: fitted to them.
    """

    pixels: Array
    preprocessing: Preprocessing

    def __getitem__(self, rows: Array) -> Array:
        """Network input float32 [B, H, W, C] of the rows int32 [B], equal to that of `apply`."""
        pre = self.preprocessing
        images = self.pixels[rows].astype(jnp.float32) / 255
        channels = (1,) * (images.ndim - 1) + (-1,)
        images = (images - pre.mean.reshape(channels)) / pre.std.reshape(channels)
        if pre.zca_transform is None:
            return images
        flat = images.reshape(len(images), -1) - pre.zca_mean.reshape(1, -1)
        white = jnp.matmul(flat, pre.zca_transform, precision="highest")
        return white.reshape(images.shape)


def invert(pre: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Network input -> viewable pixels, uint8 [N, H, W, C]: `apply` undone, clipped and rounded."""
    images = np.asarray(images)
    pixels = np.empty(images.shape, np.uint8)
    for rows in _blocks(images):
        block = images[rows].astype(np.float32)
        if pre.zca_inverse is not None:
            block = _flatten(block) @ pre.zca_inverse + pre.zca_mean
        block = block.reshape(pixels[rows].shape) * pre.std + pre.mean
        pixels[rows] = np.rint(np.clip(block, 0.0, 1.0) * 255).astype(np.uint8)
    return pixels


def mismatch_test(
    pre: Preprocessing, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """The released CIFAR-10-LT code's preprocessing of the test set (method §2, D3).

    There, test images are normalised with `mean` and `std` and then whitened with the ZCA of the
    *un-normalised* training images `pre`. Only for comparison with published numbers.
    """
    return pre.replace(mean=np.asarray(mean, np.float32), std=np.asarray(std, np.float32))


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
            return Preprocessing(**archive)
    except Exception as error:  # a damaged file raises errors of zipfile, NumPy or the dataclass
        raise UserError(
            f"{path} cannot be read ({error!r}); run the stage that writes it again."
        ) from error


def _fit_zca(pre: Preprocessing, images: np.ndarray, eps: float) -> Preprocessing:
    """T = U (s + eps)^(-1/2) Uᵀ and its inverse, from Cov = U s Uᵀ; all in float64."""
    features = int(np.prod(images.shape[1:]))
    total = np.zeros(features)
    for rows in _blocks(images):
        total += _flatten(_normalize(pre, images[rows])).sum(axis=0, dtype=np.float64)
    mean = total / len(images)
    covariance = np.zeros((features, features))
    for rows in _blocks(images):
        centred = _flatten(_normalize(pre, images[rows])).astype(np.float64) - mean
        covariance += centred.T @ centred
    covariance /= len(images) - 1
    values, vectors = scipy.linalg.eigh(covariance, overwrite_a=True, check_finite=False)
    scale = np.sqrt(np.maximum(values, 0.0) + eps)  # rounding leaves zeros slightly negative
    return pre.replace(
        zca_mean=mean.astype(np.float32),
        zca_transform=((vectors / scale) @ vectors.T).astype(np.float32),
        zca_inverse=((vectors * scale) @ vectors.T).astype(np.float32),
    )


def _normalize(pre: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Pixels [B, H, W, C] -> float32, channel mean and std removed."""
    if images.dtype == np.uint8:
        images = images / np.float32(255)
    return (images.astype(np.float32, copy=False) - pre.mean) / pre.std


def _flatten(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _blocks(images: np.ndarray) -> list[slice]:
    """Slices over the rows, each about `_BLOCK_VALUES` values long."""
    step = max(1, _BLOCK_VALUES // max(1, int(np.prod(images.shape[1:]))))
    return [slice(start, start + step) for start in range(0, len(images), step)]
