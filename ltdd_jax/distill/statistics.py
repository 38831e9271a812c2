"""Statistics of a network's layers, of a batch and class by class, which recovered images follow.

A layer's statistics are the mean and variance of what enters it. For every norm and convolution
that is one number per channel, over rows and pixels; for a convolution also one number per patch
of 4 x 4 pixels, over rows, channels and the patch (EDC, Shao et al., NeurIPS 2024). Both are kept
in one flat dict, the latter under the layer's name with `PATCHES` added.

Class statistics are exact sums over all real images, so they depend neither on the order nor on
the batch size; those of RLDD (Cui et al., AAAI 2026) are running averages over one pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.types import Array

PATCHES = "/patches"  # ends the name of a convolution's statistics per patch
PATCH_SIDE = 4


@flax.struct.dataclass
class Moments:
    """Means and biased variances.

    Attributes:
      mean: [..., D], D channels or patches.
      variance: [..., D].
    """

    mean: Array
    variance: Array


def measure_channels(maps: jax.Array) -> Moments:
    """Of [B, H, W, C] (or [B, C]) over all axes but the last; [C]."""
    return _measure(maps, tuple(range(maps.ndim - 1)))


def measure_patches(maps: jax.Array) -> Moments:
    """Of [B, H, W, C] for every patch of 4 x 4 pixels over rows, channels and pixels; [P].

    A map whose side is no multiple of 4 is stretched to the next one, bilinearly.
    """
    height, width = (math.ceil(side / PATCH_SIDE) for side in maps.shape[1:3])
    size = (len(maps), height * PATCH_SIDE, width * PATCH_SIDE, maps.shape[3])
    if size != maps.shape:
        maps = jax.image.resize(maps, size, "linear")
    tiles = maps.reshape(len(maps), height, PATCH_SIDE, width, PATCH_SIDE, maps.shape[3])
    return jax.tree.map(jnp.ravel, _measure(tiles, (0, 2, 4, 5)))


def _measure(values, axes):
    mean = values.mean(axis=axes, keepdims=True)
    variance = jnp.square(values - mean).mean(axis=axes)
    return Moments(mean=mean.reshape(variance.shape), variance=variance)


def measure_layers(inputs: Mapping[str, jax.Array], with_patches: Sequence[str]) -> dict:
    """Statistics of a batch for every layer; name -> Moments [D].

    Args:
      inputs: layer -> what enters it, [B, H, W, C] or [B, C].
      with_patches: layers whose patches are measured too.
    """
    found = {name: measure_channels(maps) for name, maps in inputs.items()}
    return found | {f"{name}{PATCHES}": measure_patches(inputs[name]) for name in with_patches}


def measure_images(inputs: Mapping[str, jax.Array], with_patches: Sequence[str]) -> dict:
    """`measure_layers` of every image alone; name -> Moments [B, D]."""

    def one(inputs):
        return measure_layers(jax.tree.map(lambda x: x[None], dict(inputs)), with_patches)

    return jax.vmap(one)(dict(inputs))


def measure_classes(
    measure: Callable[[np.ndarray], Mapping[str, Moments]],
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    pooled: bool,
    block: int = 128,
) -> dict[str, Moments]:
    """Statistics of every class over all its images; name -> Moments float32 [K, D].

    The sums are exact up to float64 on the host.

    Args:
      measure: images [block, H, W, C] -> statistics of each, as `measure_images` gives them.
      images: [N, H, W, C], read in blocks of rows.
      labels: int [N]; every class has an image.
      num_classes: K.
      pooled: variance over all pixels of all images of a class; else the mean of the variances
        within one image (EDC), to which differences between images add nothing.
      block: images per call; the last call is padded.
    """
    sums: dict[str, list[np.ndarray]] = {}
    for begin in range(0, len(labels), block):
        rows = images[np.arange(begin, min(begin + block, len(labels)))]
        member = np.zeros((len(rows), num_classes))
        member[np.arange(len(rows)), labels[begin : begin + block]] = 1.0
        padded = np.concatenate([rows, np.repeat(rows[-1:], block - len(rows), axis=0)])
        for name, found in measure(padded).items():
            mean = np.asarray(found.mean, np.float64)[: len(rows)]
            variance = np.asarray(found.variance, np.float64)[: len(rows)]
            parts = [member.T @ part for part in (mean, np.square(mean), variance)]
            before = sums.get(name, [np.zeros(())] * 3)
            sums[name] = [a + b for a, b in zip(before, parts, strict=True)]
    counts = np.bincount(labels, minlength=num_classes)[:, None]

    def divide(total, squares, variances):
        mean, variance = total / counts, variances / counts
        if pooled:  # maps have equally many pixels, so images weigh the same
            variance = variance + np.maximum(squares / counts - np.square(mean), 0.0)
        return Moments(mean=mean.astype(np.float32), variance=variance.astype(np.float32))

    return {name: divide(*parts) for name, parts in sums.items()}


def join_classes(classes: Moments, weights: Array, *, mixture: bool) -> Moments:
    """One mean and variance for several classes.

    Args:
      classes: Moments [K, D].
      weights: [K], share of each class; they sum to 1.
      mixture: variance of the mixture of the classes, Σ w (var + mean²) - (Σ w mean)², to which
        the differences between class means add; else the mean of the variances, as RLDD has it.

    Returns:
      Moments [D].
    """
    weights = weights[:, None]
    mean = (weights * classes.mean).sum(axis=0)
    variance = (weights * classes.variance).sum(axis=0)
    if mixture:
        variance = variance + (weights * (classes.mean - mean[None]) ** 2).sum(axis=0)
    return Moments(mean=mean, variance=variance)
