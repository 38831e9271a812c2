"""Breaks when an accuracy, a group border or an average over seeds changes."""

import json

import numpy as np
import pytest

from ltdd_jax.evaluate import metrics
from ltdd_jax.types import UserError


def test_per_class_accuracy_by_hand():
    labels = np.array([0, 0, 0, 1, 2, 2], np.int32)
    predictions = np.array([0, 0, 1, 1, 0, 1], np.int32)
    np.testing.assert_allclose(
        metrics.per_class_accuracy(predictions, labels, 3), [200 / 3, 100, 0]
    )


def test_per_class_accuracy_equals_a_loop_over_seeds():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(200) % 7)
    predictions = rng.integers(0, 7, (4, 200))
    expected = [[100 * np.mean(p[labels == k] == k) for k in range(7)] for p in predictions]
    np.testing.assert_allclose(metrics.per_class_accuracy(predictions, labels, 7), expected)


def test_confusions_are_counted_over_all_networks():
    """Breaks when true and predicted classes are exchanged or a network is left out."""
    labels = np.array([0, 0, 2, 1], np.int32)
    predictions = np.array([[0, 1, 2, 1], [1, 1, 2, 0]], np.int32)
    found = metrics.count_confusions(predictions, labels, 3)
    np.testing.assert_array_equal(found, [[1, 3, 0], [1, 1, 0], [0, 0, 2]])
    assert found.dtype == np.int64


def test_confusions_agree_with_the_accuracies():
    rng = np.random.default_rng(0)
    labels, predictions = np.arange(300) % 7, rng.integers(0, 7, (4, 300))
    found = metrics.count_confusions(predictions, labels, 7)
    accuracies = metrics.per_class_accuracy(predictions, labels, 7).mean(axis=0)
    np.testing.assert_allclose(100 * np.diag(found) / found.sum(axis=1), accuracies)


def test_class_without_test_images_is_an_error():
    with pytest.raises(UserError, match="class 1 has no test image"):
        metrics.per_class_accuracy(np.array([0, 2]), np.array([0, 2]), 3)


def test_group_borders():
    # 101 is many; 100 and 20 are medium; 19 is few.
    groups = metrics.group_accuracy(np.array([10.0, 20, 40, 80]), np.array([101, 100, 20, 19]))
    assert groups == {"many": 10.0, "medium": 30.0, "few": 80.0}


def test_empty_groups_are_absent():
    assert metrics.group_accuracy(np.array([10.0, 20]), np.array([500, 101])) == {"many": 15.0}
    assert metrics.group_accuracy(np.array([10.0, 20]), np.array([5, 20])) == {
        "medium": 20.0,
        "few": 10.0,
    }


def test_summary_by_hand():
    # The test set is not balanced here: overall and balanced accuracy differ.
    accuracies = np.array([[100.0, 0.0], [50.0, 50.0]])
    summary = metrics.summarize(accuracies, test_counts=[30, 10], train_counts=[200, 5])
    assert summary == {
        "per_seed": [75.0, 50.0],
        "mean": 62.5,
        "std": 12.5,  # population: divided by 2, not by 1
        "per_class": [75.0, 25.0],
        "balanced": 50.0,
        "many": 75.0,
        "few": 25.0,
    }
    json.dumps(summary, allow_nan=False)


def test_overall_accuracy_is_the_share_of_correct_images():
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(5), rng.integers(0, 5, 100)])
    predictions = rng.integers(0, 5, (3, len(labels)))
    summary = metrics.summarize(
        metrics.per_class_accuracy(predictions, labels, 5), np.bincount(labels), [50] * 5
    )
    np.testing.assert_allclose(summary["per_seed"], 100 * (predictions == labels).mean(axis=1))
