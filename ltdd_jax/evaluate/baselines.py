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
    # Of all rows at once: a program for every class size would take the compiler seconds.
    order = np.asarray(jax.random.permutation(key, len(labels))).astype(np.int64)
    of_class = [order[labels[order] == label] for label in range(num_classes)]
    return np.concatenate([np.resize(rows[:ipc], ipc) for rows in of_class])
