"""How far two gradients of a network are apart, layer by layer."""

import jax
import jax.numpy as jnp

from ltdd_jax.types import Params

_EPSILON = 1e-6


def cosine_distance(a: Params, b: Params) -> jax.Array:
    """Σ over layers and their outputs o of 1 - <a_o, b_o> / (‖a_o‖ ‖b_o‖ + 1e-6).

    Zhao, Mopuri and Bilen, ICLR 2021, equation 10: a row holds the weights that lead to one output
    of a convolution or linear layer. Vectors (biases, norms) do not count.

    Args:
      a: gradient with respect to every parameter; kernels have their outputs on the last axis.
      b: likewise.

    Returns:
      Scalar from 0 to twice the number of rows.
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.asarray(sum(_compare_rows(x, y) for x, y in pairs if x.ndim > 1))


def convolution_distance(a: Params, b: Params) -> jax.Array:
    """Σ over the kernels of all convolutions of ‖a - b‖² (DREAM, Liu et al., ICCV 2023).

    Biases, norms and linear layers do not count.
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.asarray(sum(jnp.square(x - y).sum() for x, y in pairs if x.ndim == 4))


def _compare_rows(x, y):
    x, y = (z.reshape(-1, z.shape[-1]) for z in (x, y))
    products = (x * y).sum(axis=0)
    return (1 - products / (_norm(x) * _norm(y) + _EPSILON)).sum()


def _norm(x):
    """Of every column; the derivative of a column of zeros is 0 and not 0 / 0."""
    squared = jnp.square(x).sum(axis=0)
    is_zero = squared == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))
