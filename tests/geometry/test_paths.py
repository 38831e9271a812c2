"""Distances and angles of a path that can be drawn on paper."""

import numpy as np
import pytest

from ltdd_jax import geometry
from ltdd_jax.distill import matching


def make_point(x, y, other=0.0):
    return {"block": {"kernel": np.float32([x, y])}, "classifier": {"bias": np.float32([other])}}


EXPERT = [make_point(0, 0), make_point(1, 0), make_point(1, 1)]  # a corner; the target is √2 away


def test_corner_by_hand():
    """Breaks when the way is taken to the wrong end, or segments are taken as endless lines."""
    student = [make_point(0, 0), make_point(1, 0), make_point(0.5, 0.25), make_point(-1, 0)]
    found = geometry.compare_paths(student, EXPERT)["block"]
    root = np.sqrt(2)
    np.testing.assert_allclose(
        found.remaining, [1, 1 / root, np.hypot(0.5, 0.75) / root, np.hypot(2, 1) / root]
    )
    np.testing.assert_allclose(found.distance, [0, 0, 0.25 / root, 1 / root])
    angle = 45 - np.degrees(np.arctan2(0.25, 0.5))
    np.testing.assert_allclose(found.angle, [np.nan, 45, angle, 135], rtol=1e-6)


def test_layers_are_apart_and_one_that_stands_still_has_no_scale():
    found = geometry.compare_paths([make_point(1, 1, 7.0)], EXPERT)
    assert set(found) == {"block", "classifier", "all"}
    assert found["block"].remaining == [0] and found["block"].angle == pytest.approx(0, abs=1e-5)
    assert np.isnan(found["classifier"].remaining) and np.isnan(found["classifier"].angle)
    np.testing.assert_allclose(found["all"].remaining, [7 / np.sqrt(2)])


def test_remaining_over_all_layers_is_the_root_of_the_matching_loss():
    points = np.random.default_rng(0).normal(size=(3, 3))
    final, start, target = (make_point(*p) for p in points)
    found = geometry.compare_paths([final], [start, target])["all"]
    loss = matching.matching_loss(final, start, target)
    np.testing.assert_allclose(found.remaining**2, [loss], rtol=1e-5)


def test_an_expert_needs_two_snapshots():
    with pytest.raises(ValueError, match="two snapshots or more, not 1"):
        geometry.compare_paths([], EXPERT[:1])
    assert geometry.compare_paths([], EXPERT)["all"].angle.shape == (0,)
