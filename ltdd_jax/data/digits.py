"""Handwritten digits that come with scikit-learn: a real data set without a download."""

import numpy as np

_TEST_PER_CLASS = 50
_MAX_LEVEL = 16  # the pictures have 17 grey levels, 0..16

CLASS_NAMES = tuple(str(digit) for digit in range(10))


def read_digits(split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Reads one split of the 1,797 digits (UCI Optical Recognition of Handwritten Digits).

    The last 50 images of every class in file order are the test set: the file goes through the
    writers one after another, so most test digits are by writers the training set hardly knows.
    Of the rest, every class keeps its first 124 (what the smallest class has), so that the
    training set is balanced before the long-tailed cut.

    Args:
      split: "train" or "test".

    Returns:
      images uint8 [1240 or 500, 8, 8, 1] in 0..255, labels int32, and the ten class names; in
      file order.
    """
    from sklearn import datasets  # here, because it takes a second to import

    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / _MAX_LEVEL)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    members = [np.flatnonzero(labels == label) for label in range(len(CLASS_NAMES))]
    train_per_class = min(len(rows) for rows in members) - _TEST_PER_CLASS
    if split == "test":
        kept = [rows[-_TEST_PER_CLASS:] for rows in members]
    else:
        kept = [rows[:train_per_class] for rows in members]
    rows = np.sort(np.concatenate(kept))
    return images[rows], labels[rows], CLASS_NAMES
