"""Images that hold several pictures: cutting, enlarging, making smaller."""

import math

import numpy as np
import pytest

from ltdd_jax.data import mosaic
from ltdd_jax.types import UserError


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def enlarge_by_loops(picture, factor):
    """Bilinear between pixel centres, one number after the other."""
    height, width = picture.shape
    out = np.zeros((height * factor, width * factor))

    def ends(place, length):
        at = min(max((place + 0.5) / factor - 0.5, 0), length - 1)
        low = math.floor(at)
        return low, min(low + 1, length - 1), at - low

    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            top, bottom, down = ends(i, height)
            left, right, across = ends(j, width)
            upper = (1 - across) * picture[top, left] + across * picture[top, right]
            lower = (1 - across) * picture[bottom, left] + across * picture[bottom, right]
            out[i, j] = (1 - down) * upper + down * lower
    return out


def test_four_constants_become_four_constant_images_row_by_row():
    """Breaks when cells are counted column by column, or neighbours shine through the border."""
    image = np.zeros((1, 8, 8, 1), np.float32)
    for cell, (row, col) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        image[0, row : row + 4, col : col + 4] = cell + 1
    found = np.asarray(mosaic.expand(image, 2))
    assert found.shape == (4, 8, 8, 1)
    for cell in range(4):
        np.testing.assert_allclose(found[cell], cell + 1, rtol=1e-6)


def test_expansion_is_bilinear_and_cell_major():
    """Breaks when the ends of a cell are aligned, or labels and cells have different orders."""
    images = noise(3, 4, 6, 2)
    found = np.asarray(mosaic.expand(images, 2))
    labels = np.asarray(mosaic.repeat_labels(np.arange(3), 2))
    for place, label in enumerate(labels):
        cell = place // 3
        row, col = 2 * (cell // 2), 3 * (cell % 2)
        for channel in range(2):
            picture = images[label, row : row + 2, col : col + 3, channel]
            expected = enlarge_by_loops(picture, 2)
            np.testing.assert_allclose(found[place, :, :, channel], expected, atol=1e-6)


def test_expansion_is_linear_with_rows_that_sum_to_one():
    """Breaks when a pixel at a border loses or gains weight."""
    basis = np.eye(16, dtype=np.float32).reshape(16, 4, 4, 1)
    matrix = np.asarray(mosaic.expand(basis, 2)).reshape(4, 16, 16)  # cell, basis, pixel
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    assert (matrix >= 0).all()
    image = noise(1, 4, 4, 1)
    found = np.asarray(mosaic.expand(image, 2)).reshape(4, 16)
    np.testing.assert_allclose(found, np.einsum("b,cbp->cp", image.ravel(), matrix), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_assembling_undoes_splitting(factor):
    images = noise(5, 6, 12, 3)
    cells = np.asarray(mosaic.split(images, factor))
    assert cells.shape == (5 * factor**2, 6 // factor, 12 // factor, 3)
    np.testing.assert_array_equal(np.asarray(mosaic.assemble(cells, factor)), images)


def test_halving_is_a_mean_of_four_pixels_or_the_first_of_them():
    """Breaks when the pictures are smoothed more widely, as antialiasing would."""
    images = noise(2, 4, 6, 3)
    means = images.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(mosaic.shrink(images, 2, "linear"), means, atol=1e-6)
    np.testing.assert_array_equal(mosaic.shrink(images, 2, "nearest"), images[:, ::2, ::2])


def test_functions_of_whole_images_are_taken_cell_by_cell():
    """Breaks when an inverse of a whitening, which mixes pixels, mixes neighbouring pictures."""

    def spread(images):  # the mean of the image everywhere, as pixels
        means = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
        return np.rint(means).astype(np.uint8)

    cells = 10.0 * np.arange(8, dtype=np.float32)[:, None, None, None] * np.ones((8, 2, 2, 1))
    images = np.asarray(mosaic.assemble(cells.astype(np.float32), 2))
    found = mosaic.map_cells(spread, images, 2)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, images.astype(np.uint8))


@pytest.mark.parametrize("shape", [(7, 8, 1), (8, 7, 1)])
def test_images_that_cannot_be_cut_are_refused(shape):
    with pytest.raises(UserError, match=r"config.dream.partition=2 .*multiple of 2"):
        mosaic.check_sides(shape, 2, "dream.partition")
    mosaic.check_sides((8, 6, 1), 2, "dream.partition")
