"""Accuracies on a test set: per class, balanced, and by how often a class was seen in training.

All accuracies are in percent. Axis letters: E evaluation seeds, N test images, K classes.
"""

from typing import Any

import numpy as np

from ltdd_jax.types import Array, UserError

MANY_ABOVE = 100  # training images; "many" is more than this
FEW_BELOW = 20  # "few" is less than this, "medium" lies between, both ends included
GROUPS = ("many", "medium", "few")


def per_class_accuracy(predictions: Array, labels: Array, num_classes: int) -> np.ndarray:
    """Share of the test images of each class that are predicted correctly.

    Args:
      predictions: int [..., N], predicted classes; leading axes are evaluated apart.
      labels: int [N] in [0, num_classes).
      num_classes: K.

    Returns:
      float64 [..., K].

    Raises:
      UserError: a class has no test image.
    """
    labels = np.asarray(labels)
    members = np.equal.outer(labels, np.arange(num_classes)).astype(np.float64)
    counts = members.sum(axis=0)
    if not counts.all():
        raise UserError(
            f"class {int(np.argmin(counts))} has no test image: add some, or remove the class "
            "from the training images"
        )
    return 100 * (np.equal(predictions, labels) @ members) / counts


def count_confusions(predictions: Array, labels: Array, num_classes: int) -> np.ndarray:
    """How often images of one class were taken for another.

    Args:
      predictions: int [E, N] in [0, num_classes), predicted classes of E networks.
      labels: int [N] in [0, num_classes).
      num_classes: K.

    Returns:
      int64 [K, K], summed over the networks: rows are true classes, columns predicted ones.
    """
    pairs = np.asarray(labels, np.int64) * num_classes + np.asarray(predictions)
    counts = np.bincount(pairs.ravel(), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def group_accuracy(per_class: Array, train_counts: Array) -> dict[str, float]:
    """Mean accuracy of the many-, medium- and few-shot classes.

    Args:
      per_class: float [K].
      train_counts: int [K], training images.

    Returns:
      "many" (more than 100 training images), "medium" (20 to 100), "few" (less than 20); a group
      without classes is absent.
    """
    train_counts = np.asarray(train_counts)
    many, few = train_counts > MANY_ABOVE, train_counts < FEW_BELOW
    groups = dict(zip(GROUPS, (many, ~(many | few), few), strict=True))
    return {name: float(np.mean(per_class, where=m)) for name, m in groups.items() if m.any()}


def summarize(per_seed_per_class: Array, test_counts: Array, train_counts: Array) -> dict[str, Any]:
    """Everything the report says about networks trained on one data set.

    Args:
      per_seed_per_class: float [E, K].
      test_counts: int [K], test images; where they are equal, `mean` is the balanced accuracy.
      train_counts: int [K], images of the long-tailed training set; they define the groups.

    Returns:
      `per_seed` (E accuracies over all test images), their `mean` and population `std`,
      `per_class` (means over seeds), `balanced` (mean of `per_class`) and the groups present of
      `many`, `medium`, `few`; Python numbers and lists.
    """
    accuracies = np.asarray(per_seed_per_class, np.float64)
    per_seed = accuracies @ (np.asarray(test_counts) / np.sum(test_counts))
    per_class = accuracies.mean(axis=0)
    return {
        "mean": float(per_seed.mean()),
        "std": float(per_seed.std()),
        "per_seed": per_seed.tolist(),
        "per_class": per_class.tolist(),
        "balanced": float(per_class.mean()),
        **group_accuracy(per_class, train_counts),
    }
