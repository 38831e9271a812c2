"""Layers shared by all networks, with the initialisation of the published experiments."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltdd_jax.nets import convolution
from ltdd_jax.nets.partition import STATISTICS


def uniform_fan_in(fan_in: int):
    """Initialiser U(-1/√fan_in, +1/√fan_in) for weights and biases alike."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """Convolution with square kernel, [B, H, W, C] -> [B, H', W', features].

    Attributes:
      features: output channels.
      kernel_size: side in pixels.
      stride: step in pixels.
      padding: zero rows and columns on each side.
      use_bias: whether a bias per output channel is added.
      form: how it is computed, see `convolution.conv2d`.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    use_bias: bool = True
    form: str = "auto"

    @nn.compact
    def __call__(self, images):
        shape = (self.kernel_size, self.kernel_size, images.shape[-1], self.features)
        init = uniform_fan_in(self.kernel_size**2 * images.shape[-1])
        kernel = self.param("kernel", init, shape)
        out = convolution.conv2d(
            images, kernel, stride=self.stride, padding=self.padding, form=self.form
        )
        if self.use_bias:
            out = out + _broadcast(self.param("bias", init, (self.features,)), out)
        return out


class Linear(nn.Module):
    """Affine map [B, F] -> [B, features]."""

    features: int

    @nn.compact
    def __call__(self, inputs):
        init = uniform_fan_in(inputs.shape[-1])
        kernel = self.param("kernel", init, (inputs.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return inputs @ kernel + _broadcast(bias, inputs)


class InstanceNorm(nn.Module):
    """Normalises every (image, channel) over H x W (biased variance), then scale and bias."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images):
        channels = images.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        wide = _at_least_float32(images)
        mean = wide.mean(axis=(1, 2), keepdims=True)
        centred = wide - mean
        variance = jnp.square(centred).mean(axis=(1, 2), keepdims=True)
        scale = _broadcast(scale, images).astype(wide.dtype)
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        return (centred * factor).astype(images.dtype) + _broadcast(bias, images)


class BatchNorm(nn.Module):
    """Normalises every channel over batch, H and W, then scale and bias (Ioffe and Szegedy, 2015).

    Where the collection of statistics may be changed, the batch is normalised with its own mean
    and biased variance, and the running mean and the running unbiased variance move a tenth of the
    way towards those of the batch. Elsewhere the running statistics normalise it.

    Attributes:
      momentum: share of the batch in the running statistics.
      epsilon: added to the variance.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images, weights=None):
        """Normalises images [B, H, W, C].

        Args:
          images: of any float dtype.
          weights: float32 [B] of the rows in the batch's statistics, sum 1, 0 on padding; None is
            the plain mean. The running statistics alone ignore them.
        """
        channels = images.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        kept_mean = self.variable(STATISTICS, "mean", jnp.zeros, (channels,), jnp.float32)
        kept_variance = self.variable(STATISTICS, "variance", jnp.ones, (channels,), jnp.float32)
        wide = _at_least_float32(images)
        if self.is_mutable_collection(STATISTICS) and not self.is_initializing():
            mean, variance, count = _moments(wide, weights)
            unbiased = variance * (count / jnp.maximum(count - 1, 1)).astype(variance.dtype)
            for kept, batch in ((kept_mean, mean), (kept_variance, unbiased)):
                share = self.momentum * batch.astype(kept.value.dtype)
                kept.value = (1 - self.momentum) * kept.value + share
        else:
            mean, variance = (x.value.astype(wide.dtype) for x in (kept_mean, kept_variance))
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale.astype(wide.dtype)
        normalised = (wide - _broadcast(mean, wide)) * _broadcast(factor, wide)
        return normalised.astype(images.dtype) + _broadcast(bias, images)


NORMS = {"instance": InstanceNorm, "batch": BatchNorm}


def _moments(images, weights):
    """Mean and biased variance of every channel [C], and how many values each is of."""
    rows, height, width, _ = images.shape
    if weights is None:
        weights = jnp.full(rows, 1 / rows, images.dtype)
    share = weights.astype(images.dtype)[:, None]
    mean = (share * images.mean(axis=(1, 2))).sum(axis=0)
    spread = jnp.square(images - _broadcast(mean, images)).mean(axis=(1, 2))
    count = (weights > 0).sum().astype(jnp.float32) * (height * width)
    return mean, (share * spread).sum(axis=0), count


def _at_least_float32(images):
    return images if images.dtype.itemsize >= 4 else images.astype(jnp.float32)


def average_pool(images, size: int):
    """Means over size x size windows, stride = size; rows and columns left over are dropped."""
    return _split_windows(images, size).mean(axis=(2, 4))


def max_pool(images, size: int):
    """Maxima over size x size windows, stride = size; rows and columns left over are dropped."""
    return _split_windows(images, size).max(axis=(2, 4))


def _split_windows(images, size: int):
    """[B, H, W, C] -> [B, H // size, size, W // size, size, C]."""
    batch, height, width, channels = images.shape
    rows, cols = height // size, width // size
    if not rows or not cols:
        raise ValueError(f"maps of {height} x {width} pixels are too small to be pooled by {size}")
    windows = images[:, : rows * size, : cols * size]
    return windows.reshape(batch, rows, size, cols, size, channels)


def flatten(images):
    """[B, H, W, C] -> [B, H·W·C] in (row, column, channel) order."""
    return images.reshape(images.shape[0], -1)


def _broadcast(vector, like):
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
