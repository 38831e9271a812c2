"""The synthetic set before the first outer iteration: real images, soft labels of experts."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

NOISE = -1  # row number that stands for "no real image: N(0, 1) noise"
_SCAN_BLOCK = 256


def permute_classes(key: jax.Array, class_rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rows of every class in random order."""
    # Of all rows at once: a program for every class size would take the compiler seconds.
    sizes = [len(rows) for rows in class_rows]
    order = np.asarray(jax.random.permutation(key, sum(sizes)))
    class_of = np.repeat(np.arange(len(sizes)), sizes)[order]
    everything = np.concatenate(class_rows)[order]
    return [everything[class_of == index] for index in range(len(sizes))]


def select_real(orders: Sequence[np.ndarray], ipc: int) -> np.ndarray:
    """The first `ipc` rows of every class, repeated cyclically where a class has fewer.

    Args:
      orders: rows of each class in the order to take them, none empty.
      ipc: synthetic images per class.

    Returns:
      int64 [K·ipc], class-major.
    """
    return np.concatenate([np.resize(order[:ipc], ipc) for order in orders])


def select_correct(
    orders: Sequence[np.ndarray],
    ipc: int,
    experts: Sequence[Callable[[np.ndarray], np.ndarray]],
) -> np.ndarray:
    """The first `ipc` rows of every class which an expert gets right.

    The first expert scans a class; where it knows too few rows, the next one scans those that are
    left. One expert is LTDD's rule (arXiv 2408.14506), all of them DATM's. A class with fewer hits
    repeats them cyclically; a class without any is `NOISE`.

    Args:
      orders: rows of each class in the order to scan them.
      ipc: synthetic images per class.
      experts: of each, rows int64 [n] with n <= 256 -> predicted classes [n].

    Returns:
      int64 [K·ipc], class-major.
    """
    chosen = []
    for label, order in enumerate(orders):
        hits: list[int] = []
        for predict in experts:
            left = order[~np.isin(order, hits)]
            hits += _scan(left, label, ipc - len(hits), predict)
            if len(hits) == ipc:
                break
        chosen.append(np.resize(hits, ipc) if hits else np.full(ipc, NOISE))
    return np.concatenate(chosen).astype(np.int64)


def _scan(order, label, wanted, predict):
    """At most `wanted` rows that are predicted as `label`."""
    hits: list[int] = []
    for begin in range(0, len(order), _SCAN_BLOCK):
        block = order[begin : begin + _SCAN_BLOCK]
        hits.extend(block[predict(block) == label])
        if len(hits) >= wanted:
            break
    return hits[:wanted]


def fill_images(key: jax.Array, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Real images at `rows`, N(0, 1) noise where a row is `NOISE`.

    Args:
      key: typed key of the noise.
      rows: int64 [S].
      images: float32 [N, H, W, C], normalised or whitened.

    Returns:
      float32 [S, H, W, C].
    """
    real = rows != NOISE
    if real.all():
        return images[rows]
    noise = np.array(jax.random.normal(key, (len(rows), *images.shape[1:]), jnp.float32))
    noise[real] = images[rows[real]]
    return noise


def average_correct_logits(expert_logits: Iterable[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Mean logits over the experts which classify the row correctly; 0 where none does.

    Args:
      expert_logits: one [S, K] array per classifier expert; read once.
      labels: int [S], the class each row stands for.

    Returns:
      float32 [S, K] label logits; a row of zeros is a uniform soft label.
    """
    total: np.ndarray | float = 0.0
    hits = np.zeros(len(labels))
    for logits in expert_logits:
        correct = np.argmax(logits, axis=1) == labels
        total = total + np.where(correct[:, None], logits, 0).astype(np.float64)
        hits += correct
    return np.asarray(total / np.maximum(hits, 1)[:, None], np.float32)
