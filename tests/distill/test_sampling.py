"""Which experts and start epochs the outer loop visits."""

import itertools

import jax
import numpy as np
import pytest

from ltdd_jax.distill import sampling

SIZES = [(6, 2), (7, 3), (5, 5), (4, 1), (3, 10), (1, 1)]  # experts, experts per file


@pytest.mark.parametrize(("num_experts", "per_file"), SIZES)
def test_every_pass_visits_every_expert_once_and_files_stay_together(num_experts, per_file):
    """Breaks when the two levels of the shuffle are exchanged or an expert is drawn twice."""
    order = sampling.schedule_experts(jax.random.key(0), 9 * num_experts, num_experts, per_file)
    assert order.dtype == np.int32
    for one_pass in order.reshape(9, num_experts):
        np.testing.assert_array_equal(np.sort(one_pass), np.arange(num_experts))
        files = [file for file, _ in itertools.groupby(one_pass // per_file)]
        assert len(files) == len(set(files))


def test_passes_shuffle_files_and_the_experts_inside_anew():
    """Breaks when one level keeps its order, within a pass or from pass to pass."""
    order = sampling.schedule_experts(jax.random.key(0), 400 * 6, 6, 3).reshape(400, 2, 3)
    first_files = order[:, 0, 0] // 3
    assert 150 < first_files.sum() < 250
    inside = np.sort(order % 3, axis=2)
    np.testing.assert_array_equal(inside, np.broadcast_to(np.arange(3), inside.shape))
    for place in range(2):
        patterns, counts = np.unique(order[:, place] % 3, axis=0, return_counts=True)
        assert len(patterns) == 6 and counts.min() > 30  # 400 / 6, five deviations
    assert not np.array_equal(order[:, 0] % 3, order[:, 1] % 3)


@pytest.mark.parametrize("length", [1, 5, 7, 20])
def test_a_longer_schedule_begins_with_the_shorter(length):
    """Breaks when a run that is prolonged would replay other experts or start epochs."""
    key = jax.random.key(1)
    long, short = (sampling.schedule_experts(key.copy(), count, 7, 3) for count in (50, length))
    np.testing.assert_array_equal(long[:length], short)
    upper = np.full(50, 9, np.int32)
    long, short = (
        sampling.schedule_start_epochs(key.copy(), 2, part) for part in (upper, upper[:length])
    )
    np.testing.assert_array_equal(long[:length], short)


def test_schedules_differ_between_keys():
    a, b = (sampling.schedule_experts(jax.random.key(seed), 40, 20, 5) for seed in (0, 1))
    assert not np.array_equal(a, b)
    upper = np.full(40, 20, np.int32)
    a, b = (sampling.schedule_start_epochs(jax.random.key(seed), 0, upper) for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_start_epochs_are_uniform_and_exclude_the_upper_end():
    """Breaks when the upper end can be drawn or the lower one cannot."""
    starts = sampling.schedule_start_epochs(jax.random.key(0), 3, np.full(4000, 8, np.int32))
    assert starts.dtype == np.int32
    values, counts = np.unique(starts, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(3, 8))
    assert np.abs(counts - 800).max() < 5 * np.sqrt(800)


def test_start_epochs_follow_the_range_of_their_iteration():
    upper = np.repeat([1, 2, 5, 9], 500).astype(np.int32)
    starts = sampling.schedule_start_epochs(jax.random.key(0), 0, upper).reshape(4, 500)
    for row, end in zip(starts, (1, 2, 5, 9), strict=True):
        assert row.min() == 0 and row.max() == end - 1


@pytest.mark.parametrize(
    ("min_epoch", "current", "largest", "end"), [(0, 10, 20, 1000), (2, 3, 9, 7), (0, 20, 40, 33)]
)
def test_sequential_range_expands_as_in_the_method(min_epoch, current, largest, end):
    """U = min(cur + int((max - cur) · it / end), max), in plain Python arithmetic."""
    count = end + 20
    upper = sampling.upper_start_epochs(
        count,
        min_epoch=min_epoch,
        current_epoch=current,
        max_epoch=largest,
        sequential=True,
        expansion_end=end,
    )
    assert upper.dtype == np.int32
    expected = [min(current + int((largest - current) * it / end), largest) for it in range(count)]
    np.testing.assert_array_equal(upper, expected)
    assert upper[0] == current and upper[end - 1] < largest and upper[end] == largest


def test_without_sequential_the_range_is_whole_from_the_start():
    upper = sampling.upper_start_epochs(
        5, min_epoch=1, current_epoch=0, max_epoch=7, sequential=False, expansion_end=3
    )
    np.testing.assert_array_equal(upper, [7] * 5)
    assert upper.dtype == np.int32


@pytest.mark.parametrize("min_epoch", [0, 4])
def test_the_range_is_never_empty(min_epoch):
    """The published files with current = 0 draw from an empty range; here only `min` is left."""
    upper = sampling.upper_start_epochs(
        30,
        min_epoch=min_epoch,
        current_epoch=min_epoch,
        max_epoch=min_epoch + 1,
        sequential=True,
        expansion_end=20,
    )
    np.testing.assert_array_equal(upper, [min_epoch + 1] * 30)
    starts = sampling.schedule_start_epochs(jax.random.key(0), min_epoch, upper)
    np.testing.assert_array_equal(starts, [min_epoch] * 30)
