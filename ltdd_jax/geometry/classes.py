"""What the long tail does to the classifier and to the gradients of single classes.

The starting point of the paper: experts of a long-tailed set are pulled by its head, so weights
and gradients carry the imbalance (arXiv 2408.14506; norms of the classifier by class: Alshammari
et al., arXiv 2203.14197).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltdd_jax import losses
from ltdd_jax.nets import partition
from ltdd_jax.types import Array, Params


def classifier_norms(snapshots: Iterable[Params]) -> np.ndarray:
    """Lengths of the classifier's weights that lead to each class.

    Args:
      snapshots: T of them, for instance one per epoch; read once. Biases do not count.

    Returns:
      float64 [T, K].
    """
    kernels = (np.asarray(p[partition.CLASSIFIER]["kernel"], np.float64) for p in snapshots)
    return np.stack([np.linalg.norm(kernel, axis=0) for kernel in kernels])


def class_gradients(
    apply: Callable[[Params, Array], Array],
    params: Params,
    images: Array,
    labels: Array,
    num_classes: int,
    num_rows: int | None = None,
) -> Params:
    """The gradient of the mean cross-entropy, taken apart by the class of the image.

    g_k = (1 / N) ∂/∂θ Σ_{i: y_i = k} -log softmax(logits_i)_k, so that Σ_k g_k is the gradient of
    the mean over all rows. Pure, for `jit`; takes the memory of K gradients.

    Args:
      apply: (params, images) -> logits [B, K].
      params: where the gradient is taken.
      images: float32 [B, H, W, C], network input.
      labels: int32 [B].
      num_classes: K.
      num_rows: N; None is B. Gradients of several batches add up when it is that of all of them.

    Returns:
      Tree like `params` with a leading axis K.
    """
    members = jax.nn.one_hot(labels, num_classes) / (num_rows or len(labels))

    def class_losses(params):
        return losses.cross_entropy(apply(params, images), labels) @ members

    return jax.jacrev(class_losses)(params)


@dataclasses.dataclass(frozen=True)
class GradientShares:
    """Parts of the classes in the whole gradient g = Σ_k g_k; float64 [K], each sums to 1.

    Attributes:
      length: ‖g_k‖ / Σ_j ‖g_j‖.
      progress: <g_k, g> / ‖g‖², what a class adds along the way that a step takes; negative where
        the step works against it.
    """

    length: np.ndarray
    progress: np.ndarray


def gradient_shares(gradients: Params) -> GradientShares:
    """How much of the gradient each class makes up.

    Args:
      gradients: of `class_gradients`, leading axis K.
    """
    total = jax.tree.map(lambda g: g.sum(axis=0), gradients)
    inner = np.asarray(jax.vmap(lambda g: optax.tree.vdot(g, total))(gradients), np.float64)
    norms = np.asarray(jax.vmap(optax.tree.norm)(gradients), np.float64)
    return GradientShares(length=norms / norms.sum(), progress=inner / inner.sum())


def group_cosine(gradients: Params, first: Sequence[int], second: Sequence[int]) -> float:
    """Cosine between the summed gradients of two groups of classes, for instance head and tail.

    Args:
      gradients: of `class_gradients`, leading axis K.
      first: classes of one group.
      second: classes of the other.

    Returns:
      In [-1, 1]; negative where a step for one group alone harms the other.

    Raises:
      ValueError: a group has no class.
    """
    for name, group in (("first", first), ("second", second)):
        if not len(group):
            raise ValueError(f"{name} has no class, so that there is nothing to compare")
    a, b = (_sum_classes(gradients, group) for group in (first, second))
    return float(optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b)))


def _sum_classes(gradients, group):
    return jax.tree.map(lambda g: g[jnp.asarray(group)].sum(axis=0), gradients)
