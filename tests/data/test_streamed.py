"""Network input of images on disk, on the host and in compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.data import disk_images, normalize, request, streamed
from ltdd_jax.types import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)


@pytest.fixture
def images(tmp_path):
    asked = request.Request(cache=str(tmp_path))
    return disk_images.write(asked, {}, 20, (4, 4, 3), lambda start, end: PIXELS[start:end])


def fit(whiten, pixels=PIXELS):
    return normalize.fit(pixels, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), whiten=whiten)


@pytest.mark.parametrize("whiten", [False, True])
def test_host_rows_are_those_of_the_whole(images, whiten):
    """Breaks when rows of an index of two axes are mixed up, or are preprocessed twice."""
    pre = fit(whiten)
    whole = normalize.apply(pre, PIXELS)
    rows = streamed.preprocess(pre, images)
    assert (rows.shape, rows.dtype, len(rows)) == (whole.shape, whole.dtype, 20)
    for index in (slice(3, 9), 5, np.array([7, 7, 0]), np.array([[1, 19], [2, 0]])):
        np.testing.assert_allclose(rows[index], whole[index], atol=1e-5)
        assert rows[index].dtype == np.float32
    taken = disk_images.take(rows, np.array([4, 2]))
    np.testing.assert_allclose(taken[:], whole[[4, 2]], atol=1e-5)
    assert isinstance(streamed.preprocess(pre, PIXELS), np.ndarray)
    with pytest.raises(UserError, match="wanted at once"):
        np.asarray(rows)


def test_preprocessing_is_fitted_in_passes_over_the_disk(images):
    """Breaks when statistics or the covariance of a set on disk are others than in memory."""
    for found, expected in zip(
        jax.tree.leaves(fit(True, images)), jax.tree.leaves(fit(True)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_programs_read_rows_as_from_the_device(images):
    """Bit for bit, alone and for several networks at once; breaks when networks share rows."""
    pre = fit(True)
    on_disk = streamed.StreamedImages(pre, images)
    on_device = normalize.StoredImages(jnp.asarray(PIXELS), pre)
    rows = jnp.int32([[3, 1, 19], [0, 0, 7]])

    @jax.jit
    def take(images, rows):
        return jax.vmap(lambda r: images[r])(rows)

    @jax.jit
    def scan(images, rows):
        return jax.lax.scan(lambda total, r: (total, images[r]), 0, rows)[1]

    for program in (take, scan):
        np.testing.assert_array_equal(program(on_disk, rows), program(on_device, rows))
    again = streamed.StreamedImages(pre, images.take(slice(None)))
    scan(again, rows)
    assert scan._cache_size() == 2  # on disk and on the device; equal sets share a program


def test_label_rows():
    table = np.float32([[9, 0], [0, 9]])
    found = streamed.LabelRows(table, np.int32([1, 0, 1]))[np.array([2, 1])]
    np.testing.assert_array_equal(found, table[[1, 0]])
