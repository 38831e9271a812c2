"""Long-tailed split: imbalance factor -> class counts -> indices (arXiv 2408.14506, method §1).

The selection is the paper's, index for index: it depends on NumPy's legacy generator seeded with
42 for every class, and on the order of the images within their class.
"""

from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from ltdd_jax.data.request import list_names
from ltdd_jax.errors import UserError

_SEED = 42  # the seed of the published subsets; another seed makes another data set


def long_tail_counts(max_count: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Planned number of images of every class, head first.

    N_c = int(max_count · r^(c / (K - 1))) with r = 1 / imbalance_factor, in Python's float64
    arithmetic: the truncation turns a rounding error in the power into a missing image.

    Args:
      max_count: images of class 0, the head; ≥ 1.
      num_classes: K ≥ 1.
      imbalance_factor: head count over tail count, ≥ 1; 1 gives equal counts.

    Returns:
      K counts, not increasing. The last may be 0 where `imbalance_factor` exceeds `max_count`.

    Raises:
      UserError: `imbalance_factor` is not a finite number ≥ 1.
    """
    if not 1.0 <= imbalance_factor < float("inf"):  # also refuses nan
        raise UserError(
            f"data.imbalance_factor is {imbalance_factor}, but it is the largest over the smallest "
            "class count and must be a finite number ≥ 1 (1 keeps the classes balanced)."
        )
    rate = 1.0 / float(imbalance_factor)
    return [int(max_count * rate ** (c / max(num_classes - 1, 1))) for c in range(num_classes)]


def select_long_tail(
    labels: np.ndarray,
    num_classes: int,
    imbalance_factor: float,
    *,
    class_names: Sequence[str] = (),
    warn: Callable[[str], None] = logging.warning,
) -> np.ndarray:
    """Chooses the images of the long-tailed training set.

    The head count is len(labels) / num_classes, so the data set should be balanced. Of a class that
    has fewer images than planned all are taken.

    Args:
      labels: int [N], in the original order of the data set.
      num_classes: K; labels are 0..K-1.
      imbalance_factor: head count over tail count, ≥ 1.
      class_names: K names for the messages; labels are named by number without them.
      warn: called with one sentence if classes have fewer images than planned.

    Returns:
      int64 [sum of counts], indices into `labels`, class 0 first, in the order drawn.

    Raises:
      UserError: `imbalance_factor` < 1, or a class is or would be empty.
    """
    labels = np.asarray(labels)
    planned = long_tail_counts(len(labels) // num_classes, num_classes, imbalance_factor)
    members = [np.flatnonzero(labels == label) for label in range(num_classes)]
    short = []
    for label, (rows, count) in enumerate(zip(members, planned, strict=True)):
        name = repr(class_names[label]) if class_names else str(label)
        if len(rows) == 0:
            raise UserError(f"class {name} has no image; every class needs at least one.")
        if count == 0:
            raise UserError(
                f"class {name} would be empty: data.imbalance_factor={imbalance_factor:g} leaves "
                f"it less than one of {planned[0]} images; lower data.imbalance_factor."
            )
        if len(rows) < count:
            short.append(f"{name} ({len(rows)} of {count})")
    if short:
        warn(
            f"all images are taken of classes that have fewer than data.imbalance_factor="
            f"{imbalance_factor:g} plans: {list_names(short)}; keep a data set that "
            "is already long-tailed with --config.data.subset=as_is"
        )
    counts = [min(len(rows), count) for rows, count in zip(members, planned, strict=True)]
    return np.concatenate(
        [rows[_draw(len(rows), count)] for rows, count in zip(members, counts, strict=True)]
    )


def permute_test(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Order of the CIFAR-10 test set in the paper: sorted by class, permuted within each class.

    Args:
      labels: int [N].
      num_classes: K; labels are 0..K-1.

    Returns:
      int64 [N], a permutation of 0..N-1.
    """
    labels = np.asarray(labels)
    members = [np.flatnonzero(labels == label) for label in range(num_classes)]
    return np.concatenate([rows[_draw(len(rows), len(rows))] for rows in members])


def _draw(available: int, count: int) -> np.ndarray:
    """Within-class indices int64 [count], in the order drawn; a prefix of one permutation."""
    generator = np.random.RandomState(_SEED)
    return generator.choice(available, count, replace=False)


def hold_out(
    seed: Sequence[int], labels: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows by class: (kept, held out), positions in ascending order.

    Of each class `share` of its rows is held out, at least one; a class of one row keeps it.

    Args:
      seed: numbers that decide which.
      labels: int [N].
      share: above 0, at most 0.5.
    """
    held = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.random.default_rng([*seed, int(label)]).permutation(len(rows))
        held.append(rows[order[: max(1, int(share * len(rows)))]] if len(rows) > 1 else rows[:0])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out
