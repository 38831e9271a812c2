"""k-means against scikit-learn, and in the corners of a long tail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ltdd_jax.distill import clusters


def make_blobs(sizes=(20, 6, 3)):
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 4]], np.float32)
    points = np.concatenate(
        [m + rng.normal(size=(n, 3)) for m, n in zip(middles, sizes, strict=True)]
    )
    return points.astype(np.float32), np.repeat(np.arange(3), sizes)


def test_three_blobs_give_an_image_each():
    """Breaks when a rare group is drowned by a large one, or padding is chosen."""
    points, blob = make_blobs()
    padded = jnp.concatenate([points, np.full((5, 3), 50, np.float32)])
    present = np.arange(len(padded)) < len(points)
    for seed in range(5):
        centres = clusters.find_centres(jax.random.key(seed), padded, present, 3, 20)
        rows = np.asarray(clusters.find_nearest(centres, padded, present))
        assert sorted(blob[rows]) == [0, 1, 2]


def test_centres_equal_those_of_scikit_learn_from_the_same_start(monkeypatch):
    """Breaks when a centre is not the mean of its points, or the algorithm stops too early."""
    points = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    start = points[:6]
    monkeypatch.setattr(clusters, "_spread_centres", lambda *arguments: jnp.asarray(start))
    present = np.ones(40, bool)
    found = clusters.find_centres(jax.random.key(0), points, present, 6, 100)
    expected = KMeans(6, init=start, n_init=1, tol=0, max_iter=100).fit(points)
    np.testing.assert_allclose(found, expected.cluster_centers_, atol=1e-4)
    distances = np.asarray(clusters.measure_distances(found, points)).min(axis=0)
    assert distances.sum() == pytest.approx(expected.inertia_, rel=1e-4)


def test_spread_start_is_about_as_good_as_that_of_scikit_learn():
    """Breaks when the first centres are drawn uniformly, so that blobs stay without one."""
    points, _ = make_blobs((60, 5, 5))
    ours = []
    for seed in range(5):
        centres = clusters.find_centres(
            jax.random.key(seed), jnp.asarray(points), np.ones(70, bool), 3, 50
        )
        ours.append(np.asarray(clusters.measure_distances(centres, points)).min(axis=0).sum())
    best = KMeans(3, n_init=10, random_state=0).fit(points).inertia_
    assert np.median(ours) == pytest.approx(best, rel=1e-3)


def test_a_class_with_fewer_images_than_centres_gives_every_image():
    """In the first columns; breaks when a tail image is left out or chosen twice."""
    own = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)
    points = jnp.concatenate([own[:3], own])  # the first three are padding, as near as can be
    present = np.arange(7) >= 3
    for seed in range(4):
        centres = clusters.find_centres(jax.random.key(seed), points, present, 6, 10)
        rows = np.asarray(clusters.find_nearest(centres, points, present))
        assert sorted(rows[:4]) == [3, 4, 5, 6] and rows.min() >= 3
