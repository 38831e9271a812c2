"""What a distilled set has to beat: as many real images, and all of them."""

import jax
import numpy as np

_HARD_LOGIT = 30.0  # softmax of this against zeros is a one-hot label in float32


def hard_label_logits(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Label logits whose softmax is one-hot; float32 [N, K]."""
    return (_HARD_LOGIT * np.eye(num_classes)[labels]).astype(np.float32)


def draw_random_subset(key: jax.Array, labels: np.ndarray, num_classes: int, ipc: int):
    """`ipc` random rows of every class, repeated cyclically where a class has fewer.

    Args:
      key: typed key.
      labels: int [N], every class occurs.
      num_classes: K.
      ipc: images per class.

    Returns:
      int64 [K·ipc] rows, class-major.
    """
    chosen = []
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        order = jax.random.permutation(jax.random.fold_in(key, label), len(rows))
        chosen.append(np.resize(rows[np.asarray(order)[:ipc]], ipc))
    return np.concatenate(chosen)
