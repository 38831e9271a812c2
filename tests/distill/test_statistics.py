"""Statistics of batches and classes against NumPy, pixel by pixel."""

import jax
import numpy as np
import pytest

from ltdd_jax.distill import statistics
from ltdd_jax.distill.statistics import Moments

COUNTS = (7, 4, 2)
LABELS = np.repeat(np.arange(3), COUNTS)


def draw_maps(shape=(13, 6, 5, 3), seed=0):
    """Maps whose images have different means and spreads."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(2, shape[0], 1, 1, 1))
    return (own[0] + np.exp(own[1]) * rng.normal(size=shape)).astype(np.float32)


@jax.jit
def measure(images):
    """Each image is its own map; compiled once for all tests that use blocks of one size."""
    return statistics.measure_images({"map": images}, ["map"])


measure_channels = jax.jit(statistics.measure_channels)
measure_patches = jax.jit(statistics.measure_patches)


def measure_classes(images=None, labels=LABELS, *, pooled=True, block=5):
    images = draw_maps() if images is None else images
    return statistics.measure_classes(measure, images, labels, 3, pooled=pooled, block=block)


def test_channels_are_those_of_all_pixels():
    maps = draw_maps()
    found = measure_channels(maps)
    rows = maps.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.variance, rows.var(axis=0), rtol=1e-5)


def test_a_patch_holds_four_by_four_pixels_of_all_channels():
    """Breaks when patches are interleaved, ordered by columns, or split by channel."""
    maps = draw_maps((3, 8, 12, 2))
    found = measure_patches(maps)
    assert found.mean.shape == found.variance.shape == (6,)
    for row in range(2):
        for col in range(3):
            patch = maps[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4].astype(np.float64)
            np.testing.assert_allclose(found.mean[3 * row + col], patch.mean(), rtol=1e-4)
            np.testing.assert_allclose(found.variance[3 * row + col], patch.var(), rtol=1e-5)


def test_small_maps_are_stretched_to_whole_patches():
    """A map of one pixel becomes one patch of it; breaks when the side is rounded down to 0."""
    maps = draw_maps((4, 1, 5, 2))
    found = measure_patches(maps)
    assert found.mean.shape == (2,)  # 4 x 8 pixels
    one = measure_patches(maps[:, :, :1])
    np.testing.assert_allclose(one.mean[0], maps[:, :, :1].mean(), rtol=1e-5)
    np.testing.assert_allclose(one.variance[0], maps[:, :, :1].var(), rtol=1e-5)


def test_class_statistics_are_those_of_all_their_pixels():
    """Breaks when classes mix, padding counts, or the spread between images is lost."""
    images = draw_maps()
    pooled, apart = measure_classes(images), measure_classes(images, pooled=False)
    for k in range(3):
        of_class = images[k == LABELS].astype(np.float64)
        rows = of_class.reshape(-1, 3)
        np.testing.assert_allclose(pooled["map"].mean[k], rows.mean(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(pooled["map"].variance[k], rows.var(axis=0), rtol=1e-4)
        within = of_class.var(axis=(1, 2)).mean(axis=0)
        np.testing.assert_allclose(apart["map"].variance[k], within, rtol=1e-4)
        np.testing.assert_array_equal(apart["map"].mean[k], pooled["map"].mean[k])
    patches = pooled["map" + statistics.PATCHES]
    assert patches.mean.shape == (3, 4)  # 6 x 5 pixels are stretched to 8 x 8
    stretched = np.asarray(jax.image.resize(images, (13, 8, 8, 3), "linear"), np.float64)
    corner = stretched[LABELS == 1, :4, 4:]
    np.testing.assert_allclose(patches.mean[1, 1], corner.mean(), rtol=1e-4)
    np.testing.assert_allclose(patches.variance[1, 1], corner.var(), rtol=1e-4)


@pytest.mark.parametrize("pooled", [True, False])
def test_class_statistics_depend_neither_on_order_nor_on_batch_size(pooled):
    """Breaks when a running average takes the place of exact sums."""
    images, order = draw_maps(), np.random.default_rng(1).permutation(13)
    expected = measure_classes(images, pooled=pooled)
    for found in (
        measure_classes(images[order], LABELS[order], pooled=pooled),
        measure_classes(images, pooled=pooled, block=4),
    ):
        for name, moments in expected.items():
            np.testing.assert_allclose(found[name].mean, moments.mean, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(found[name].variance, moments.variance, rtol=1e-6)


def test_a_mixture_of_two_classes_separates_the_two_variances():
    """N(-3, 1) and N(1, 2²), a quarter and three quarters: 3.25 within, 3 between."""
    classes = Moments(mean=np.array([[-3.0], [1.0]]), variance=np.array([[1.0], [4.0]]))
    shares = np.array([0.25, 0.75])
    mean = statistics.join_classes(classes, shares, mixture=False)
    mixture = statistics.join_classes(classes, shares, mixture=True)
    assert (float(mean.mean[0]), float(mixture.mean[0])) == (0.0, 0.0)
    assert (float(mean.variance[0]), float(mixture.variance[0])) == (3.25, 6.25)


def test_the_mixture_by_frequency_is_the_statistic_of_all_images():
    images = draw_maps()
    classes = measure_classes(images)["map"]
    found = statistics.join_classes(classes, np.array(COUNTS, np.float32) / 13, mixture=True)
    rows = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.variance, rows.var(axis=0), rtol=1e-4)
