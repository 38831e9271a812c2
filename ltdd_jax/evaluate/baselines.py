"""What a distilled set has to beat: random real images, of the same number."""

import jax
import numpy as np


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
