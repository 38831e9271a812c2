"""The plane against points of a known one, and against NumPy's SVD of all points at once."""

import numpy as np
import pytest

from ltdd_jax import geometry
from ltdd_jax.geometry import layers


def make_tree(vector):
    """[35] as parameters of two layers."""
    vector = np.asarray(vector, np.float32)
    return {
        "block": {"kernel": vector[:20].reshape(4, 5), "bias": vector[20:25]},
        "classifier": {"kernel": vector[25:].reshape(5, 2)},
    }


def make_points(count, seed=0):
    """Trees, and float64 [count, 35] in the order of `flatten`; far from the origin."""
    generator = np.random.default_rng(seed)
    scales = np.geomspace(3, 0.01, 35)
    trees = [make_tree(10 + scales * generator.normal(size=35)) for _ in range(count)]
    return trees, np.stack([layers.flatten(tree) for tree in trees])


@pytest.mark.parametrize("block_size", [1, 4, 50])
def test_axes_coordinates_and_variances_are_those_of_the_svd(block_size):
    """Breaks when a block of the matrix is misplaced, or the mean is not taken off."""
    trees, matrix = make_points(11)
    plane = geometry.fit_plane(trees.__getitem__, 11, num_axes=3, block_size=block_size)
    centred = matrix - matrix.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(plane.mean, matrix.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(plane.variances, values[:3] ** 2 / 11, rtol=1e-9)
    np.testing.assert_allclose(plane.shares, values[:3] ** 2 / np.sum(values**2), rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(plane.axes * right[:3], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(np.abs(plane.coordinates), np.abs(left * values)[:, :3], atol=1e-9)
    largest = np.abs(plane.coordinates).argmax(axis=0)
    assert (plane.coordinates[largest, range(3)] > 0).all()


def test_points_of_a_plane_keep_their_distances_and_come_back():
    """Breaks when axes are not unit vectors, or `project` and `lift` disagree."""
    generator = np.random.default_rng(1)
    axes = np.linalg.qr(generator.normal(size=(35, 2)))[0].T
    flat = generator.normal(size=(9, 2)) * (5, 2)
    trees = [make_tree(point) for point in flat @ axes + 1]
    plane = geometry.fit_plane(trees.__getitem__, 9)
    assert plane.shares.sum() == pytest.approx(1, abs=1e-6)
    for other in range(9):
        found = np.linalg.norm(plane.coordinates - plane.coordinates[other], axis=1)
        np.testing.assert_allclose(found, np.linalg.norm(flat - flat[other], axis=1), atol=1e-5)
    for tree, coordinates in zip(trees, plane.coordinates, strict=True):
        np.testing.assert_allclose(plane.project(tree), coordinates, atol=1e-5)
        lifted = plane.lift(coordinates)
        assert lifted["block"]["kernel"].dtype == np.float32
        np.testing.assert_allclose(layers.flatten(lifted), layers.flatten(tree), atol=1e-5)


def test_a_point_beside_the_plane_falls_on_it_at_a_right_angle():
    trees, _ = make_points(6)
    plane = geometry.fit_plane(trees.__getitem__, 6)
    aside = np.random.default_rng(3).normal(size=35)
    aside -= plane.axes.T @ (plane.axes @ aside)
    point = layers.unflatten(plane.mean + plane.axes.T @ [2.0, -1.0] + aside, trees[0])
    np.testing.assert_allclose(plane.project(point), [2, -1], atol=1e-5)


def test_snapshots_are_read_no_more_than_promised():
    trees, _ = make_points(12)
    reads = []
    geometry.fit_plane(lambda i: reads.append(i) or trees[i], 12, block_size=4)
    assert len(reads) <= 12 * (2 + 12 / 8)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_on_a_line_have_no_plane(count):
    trees = [make_tree(k * np.arange(35.0)) for k in range(count)]
    with pytest.raises(ValueError, match=f"{count} snapshots spread in {min(count - 1, 1)} dir"):
        geometry.fit_plane(trees.__getitem__, count)
