"""The published subsets, index for index, and what cannot be cut."""

import re

import numpy as np
import pytest

from ltdd_jax.data import long_tail
from ltdd_jax.types import UserError
from tests.golden_files import load_golden


def _balanced_labels(num_classes: int, per_class: int) -> np.ndarray:
    """Labels in a scrambled order, so that class order and file order differ."""
    labels = np.repeat(np.arange(num_classes), per_class)
    return np.random.default_rng(1).permutation(labels)


def _within_class(labels: np.ndarray, indices: np.ndarray, label: int) -> np.ndarray:
    rows = np.flatnonzero(labels == label)
    return np.searchsorted(rows, indices[labels[indices] == label])


@pytest.mark.golden
def test_golden_counts():
    """Rounding in place of truncation, or a swapped class order, is off in many classes."""
    golden = load_golden("lt_split")
    names = [name for name in golden if re.fullmatch(r".+_if\d+", name)]
    assert names
    for name in names:
        factor = int(name.rpartition("_if")[2])
        expected = golden[name].tolist()
        assert long_tail.long_tail_counts(expected[0], len(expected), factor) == expected, name


@pytest.mark.parametrize(
    ("max_count", "factor", "expected"),
    [(1000, 1000, [1000, 100, 10, 1]), (1000, 8, [1000, 500, 250, 125])],
)
def test_counts_at_whole_powers(max_count, factor, expected):
    """The power in float32 falls just below a whole number here and loses an image."""
    assert long_tail.long_tail_counts(max_count, 4, factor) == expected


@pytest.mark.golden
def test_golden_indices():
    golden = load_golden("lt_split")
    pattern = r"(.+_if(\d+))_within_class_idx_(\d+)"
    names = [name for name in golden if re.fullmatch(pattern, name)]
    assert names
    for name in names:
        plan, factor, label = re.fullmatch(pattern, name).groups()
        labels = _balanced_labels(len(golden[plan]), int(golden[plan][0]))
        indices = long_tail.select_long_tail(labels, len(golden[plan]), float(factor))
        np.testing.assert_array_equal(_within_class(labels, indices, int(label)), golden[name])


@pytest.mark.golden
def test_golden_test_permutation():
    golden = load_golden("lt_split")
    names = [name for name in golden if "_test_within_class_idx_" in name]
    assert names
    for name in names:
        label = int(name.rpartition("_")[2])
        labels = _balanced_labels(label + 2, len(golden[name]))
        indices = long_tail.permute_test(labels, label + 2)
        np.testing.assert_array_equal(np.sort(indices), np.arange(len(labels)))
        np.testing.assert_array_equal(_within_class(labels, indices, label), golden[name])


def test_selection_is_sorted_by_class_nested_and_without_repeats():
    labels = _balanced_labels(5, 40)
    small = long_tail.select_long_tail(labels, 5, 20)
    large = long_tail.select_long_tail(labels, 5, 4)
    assert small.dtype == np.int64
    np.testing.assert_array_equal(labels[small], np.sort(labels[small]))
    assert len(set(small)) == len(small)
    assert set(small) < set(large)
    counts = np.bincount(labels[small], minlength=5).tolist()
    assert counts == long_tail.long_tail_counts(40, 5, 20) == [40, 18, 8, 4, 2]


def test_factor_one_keeps_everything():
    labels = _balanced_labels(3, 7)
    indices = long_tail.select_long_tail(labels, 3, 1)
    np.testing.assert_array_equal(np.sort(indices), np.arange(21))
    assert long_tail.long_tail_counts(9, 1, 50) == [9]


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan"), float("inf")])
def test_impossible_factor(factor):
    with pytest.raises(UserError, match=r"data.imbalance_factor is .* finite number ≥ 1"):
        long_tail.select_long_tail(_balanced_labels(3, 7), 3, factor)


@pytest.mark.parametrize(
    ("labels", "factor", "message"),
    [
        ([0, 0, 0, 1, 1, 1], 10, "class 'dog' would be empty: data.imbalance_factor=10"),
        ([0, 0, 0, 0], 2, "class 'dog' has no image"),
    ],
)
def test_class_that_cannot_be_cut_is_named(labels, factor, message):
    with pytest.raises(UserError, match=message):
        long_tail.select_long_tail(np.array(labels), 2, factor, class_names=("cat", "dog"))


def test_all_images_are_taken_of_classes_with_fewer_than_planned():
    """Breaks when such a set is refused, an image of theirs is lost, or nobody is told."""
    labels = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2])
    warnings = []
    rows = long_tail.select_long_tail(
        labels, 3, 1.5, class_names=("cat", "dog", "emu"), warn=warnings.append
    )
    assert np.bincount(labels[rows]).tolist() == [1, 2, 2]
    (warning,) = warnings
    assert "'cat' (1 of 3)" in warning and "dog" not in warning
    long_tail.select_long_tail(_balanced_labels(3, 7), 3, 2, warn=warnings.append)
    assert len(warnings) == 1


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_held_out_split_is_of_every_class_and_has_no_image_twice(share):
    """Breaks when a class is left out, loses all its images, or an image is on both sides."""
    labels = np.repeat([0, 1, 2, 3], [50, 11, 2, 1])
    labels = np.random.default_rng(0).permutation(labels)
    kept, held = long_tail.hold_out((0, 1), labels, share)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    numbers = np.bincount(labels[held], minlength=4)
    expected = [max(1, int(share * count)) for count in (50, 11, 2)]
    np.testing.assert_array_equal(numbers, [*expected, 0])


def test_held_out_split_depends_on_the_seed_alone():
    labels = np.repeat([0, 1], 30)
    (_, one), (_, again), (_, other) = (
        long_tail.hold_out((seed, 1), labels, 0.2) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert set(one) & set(range(30)) != set(range(6))  # not the first ones


def test_held_out_split_of_classes_of_one_image_holds_nothing_out():
    kept, held = long_tail.hold_out((0, 1), np.arange(3), 0.5)
    np.testing.assert_array_equal(kept, np.arange(3))
    assert len(held) == 0
