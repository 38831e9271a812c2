"""Baselines: random real images."""

import jax
import numpy as np

from ltdd_jax.evaluate import baselines

LABELS = np.array([1, 0, 0, 1, 0, 2, 0, 0, 0, 1])


def test_subset_is_class_major_without_repetition_where_possible():
    """Class 1 has three images, class 2 one; rows need not be sorted by class."""
    rows = baselines.draw_random_subset(jax.random.key(0), LABELS, [4] * 3)
    assert rows.shape == (12,) and rows.dtype == np.int64
    np.testing.assert_array_equal(LABELS[rows], np.repeat([0, 1, 2], 4))
    assert len(set(rows[:4])) == 4
    assert set(rows[4:7]) == {0, 3, 9} and rows[7] == rows[4]
    np.testing.assert_array_equal(rows[8:], [5] * 4)


def test_subset_depends_on_the_key_and_covers_the_class():
    """Breaks when the subset is always the first images, as sorted data would tempt to."""
    draws = [baselines.draw_random_subset(jax.random.key(s), LABELS, [2] * 3) for s in range(60)]
    again = baselines.draw_random_subset(jax.random.key(0), LABELS, [2] * 3)
    np.testing.assert_array_equal(draws[0], again)
    values, counts = np.unique(np.stack(draws)[:, :2], return_counts=True)
    np.testing.assert_array_equal(values, np.flatnonzero(LABELS == 0))
    assert counts.min() > 5  # 20 expected of each
