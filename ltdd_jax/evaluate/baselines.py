"""What a distilled set has to beat: random real images, of the same number."""

from collections.abc import Sequence

import jax
import numpy as np


def draw_random_subset(key: jax.Array, labels: np.ndarray, numbers: Sequence[int]):
    """Some random rows of every class, repeated cyclically where a class has fewer.

    Args:
      key: typed key.
      labels: int [N], every class occurs.
      numbers: K, of each class.

    Returns:
      int64 [sum of `numbers`] rows, class-major.
    """
    # Of all rows at once: a program for every class size would take the compiler seconds.
    order = np.asarray(jax.random.permutation(key, len(labels))).astype(np.int64)
    of_class = [order[labels[order] == label] for label in range(len(numbers))]
    return np.concatenate(
        [np.resize(rows[:number], number) for rows, number in zip(of_class, numbers, strict=True)]
    )
