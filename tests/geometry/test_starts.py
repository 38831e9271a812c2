"""Matching losses of students that go a known part of the way."""

import numpy as np
import pytest

from ltdd_jax import geometry


def read(epoch):
    """An expert that goes 1 per epoch in one weight and stands still in the classifier's bias."""
    return {
        "block": {"kernel": np.float32([epoch, 0])},
        "classifier": {"kernel": np.float32([2 * epoch]), "bias": np.float32([1])},
    }


def run_student(start):
    """Goes 1.5 in the backbone, nowhere in the classifier."""
    return start | {"block": {"kernel": start["block"]["kernel"] + np.float32([1.5, 0])}}


def test_loss_falls_with_the_way_that_is_left():
    """Breaks when the target is not M epochs after the start, or the parts are mixed."""
    found = geometry.match_by_start(run_student, read, [0, 2, 5], 3, "backbone")
    np.testing.assert_allclose(found.loss, [0.25, 0.25, 0.25])
    np.testing.assert_allclose(found.expert_distance, [3, 3, 3])
    still = geometry.match_by_start(run_student, read, [0], 3, "classifier")
    assert still.loss == [1] and still.expert_distance == [6]
    both = geometry.match_by_start(run_student, read, [4], 3)
    np.testing.assert_allclose(both.loss, [(1.5**2 + 36) / 45])


def test_unknown_part_is_refused():
    with pytest.raises(ValueError, match="head"):
        geometry.match_by_start(run_student, read, [0], 1, "head")
