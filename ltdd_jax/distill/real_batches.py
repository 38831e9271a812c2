"""Which real images an iteration sees: drawn on the host from the iteration alone.

Only row numbers are drawn; the images themselves are a constant of the method on the device, or
on disk where they do not fit.
Shapes never change: a class with fewer images than asked for gives what it has, and the padding
has weight 0.
"""

from collections.abc import Sequence

import jax
import numpy as np

from ltdd_jax.types import Batch


def make_generator(key: jax.Array, iteration: int) -> np.random.Generator:
    """Random numbers of one iteration, in whatever order iterations are asked for."""
    seed = np.asarray(jax.random.key_data(key)).tolist()
    return np.random.default_rng([*seed, iteration])


def list_classes(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The rows of every class."""
    return [np.flatnonzero(labels == k) for k in range(num_classes)]


def draw_of_classes(
    generator: np.random.Generator, of_class: Sequence[np.ndarray], count: int
) -> Batch:
    """The first n of a fresh permutation of every class, R_c(n); fewer where a class is small.

    Args:
      generator: source of randomness.
      of_class: rows of each class, none empty.
      count: n.

    Returns:
      Batch with indices int32 [K, B] and weights float32 [K, B]; those of a class sum to 1. B is
      n, or the size of the largest class if that is smaller.
    """
    return pad([generator.permutation(rows)[:count] for rows in of_class])


def draw_of_all(generator: np.random.Generator, num_rows: int, size: int, count: int) -> Batch:
    """Batches of natural sampling, each without repetition.

    Args:
      generator: source of randomness.
      num_rows: N.
      size: images of a batch; more than N means all.
      count: number of batches.

    Returns:
      Batch with indices int32 [count, B] and weights float32 [count, B].
    """
    rows = [generator.permutation(num_rows)[:size] for _ in range(count)]
    shape = (count, min(size, num_rows))
    return Batch(
        indices=np.array(rows, np.int32).reshape(shape),
        weights=np.full(shape, 1 / shape[1], np.float32),
    )


def cut_pass(generator: np.random.Generator, num_rows: int, size: int, count: int) -> Batch:
    """The first batches of a pass over all rows in random order; the last of the pass may be short.

    Returns:
      Batch with indices int32 [n, B] and weights float32 [n, B]; n is `count` or the number of
      batches of a pass if that is smaller.
    """
    order = generator.permutation(num_rows)
    return pad([order[i : i + size] for i in range(0, min(num_rows, count * size), size)])


def pad(lists: Sequence[np.ndarray]) -> Batch:
    """Rows of different numbers as one Batch, each with the weights of a mean."""
    width = max(len(rows) for rows in lists)
    weights = [(np.arange(width) < len(rows)) / len(rows) for rows in lists]
    return Batch(
        indices=np.stack([np.resize(rows, width) for rows in lists]).astype(np.int32),
        weights=np.stack(weights).astype(np.float32),
    )
