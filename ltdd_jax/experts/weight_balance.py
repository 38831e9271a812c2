"""MaxNorm weight balancing by projected gradient descent (method section "Classifier experts").

Bounds the L2 norm of the weights that lead to each class, so that head classes do not win by the
size of their weights alone (arXiv 2203.14197). Biases are never projected. The reference computes
the bound at its first call and keeps it; here the caller keeps it.
"""

import jax.numpy as jnp


def norm_threshold(kernel, fraction: float = 0.1):
    """Bound of the norm per class: min + fraction · (max - min) over the present norms.

    Args:
      kernel: float [F, K], classifier kernel; column k leads to class k.
      fraction: in [0, 1]; 0 gives all classes the smallest norm, 1 changes nothing.

    Returns:
      Scalar of the same dtype.
    """
    norms = jnp.linalg.norm(kernel, axis=0)
    return norms.min() + fraction * (norms.max() - norms.min())


def project(kernel, bound):
    """Rescales the columns of `kernel` [F, K] that are longer than `bound` to that length."""
    norms = jnp.linalg.norm(kernel, axis=0, keepdims=True)
    return jnp.where(norms > bound, kernel * (bound / norms), kernel)
