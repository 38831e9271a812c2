"""Random resized crops and cutmix against loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.data import crops


def _images(shape=(4, 8, 6, 2), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _boxes(rows, mirrored=False):
    columns = np.array(rows, np.float32).T
    return crops.Boxes(*map(jnp.asarray, columns), mirrored=jnp.full(len(rows), mirrored))


def _resize(picture, height, width):
    """Bilinear resize to a larger size by loops, edge pixels repeated."""
    out = np.zeros((height, width, picture.shape[2]))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * picture.shape[0] / height - 0.5, 0), picture.shape[0] - 1)
            x = min(max((j + 0.5) * picture.shape[1] / width - 0.5, 0), picture.shape[1] - 1)
            r, c = int(y), int(x)
            below, right = min(r + 1, picture.shape[0] - 1), min(c + 1, picture.shape[1] - 1)
            v, u = y - r, x - c
            out[i, j] = (1 - v) * ((1 - u) * picture[r, c] + u * picture[r, right])
            out[i, j] += v * ((1 - u) * picture[below, c] + u * picture[below, right])
    return out


def test_a_box_of_whole_pixels_is_cropped_then_resized():
    """Breaks when boxes are off by half a pixel, axes are swapped or pixels outside leak in."""
    images = _images()
    places = [(0, 0, 8, 6), (1, 2, 4, 3), (5, 0, 3, 2), (7, 5, 1, 1)]
    found = crops.resize_crop(jnp.asarray(images), _boxes(places))
    mirrored = crops.resize_crop(jnp.asarray(images), _boxes(places, True), (8, 7))
    for image, (top, left, height, width), out, other in zip(
        images, places, found, mirrored, strict=True
    ):
        cut = image[top : top + height, left : left + width]
        np.testing.assert_allclose(out, _resize(cut, 8, 6), atol=2e-6)
        np.testing.assert_allclose(other, _resize(cut, 8, 7)[:, ::-1], atol=2e-6)


@pytest.mark.parametrize("ratio", [crops.SQUARE, (0.75, 4 / 3)])
def test_drawn_boxes_lie_inside_and_have_the_asked_areas(ratio):
    """Breaks when boxes stick out, areas or shapes leave their ranges, or flips never come."""
    boxes = crops.draw_boxes(jax.random.key(0), 4000, (8, 6), area=(0.2, 0.9), ratio=ratio)
    top, left, height, width = (
        np.asarray(x, float) for x in (boxes.top, boxes.left, boxes.height, boxes.width)
    )
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 8 + 1e-5
    assert (left + width).max() <= 6 + 1e-5
    assert height.min() > 0
    area, shape = height * width / 48, (width / 6) / (height / 8)
    assert 0.2 - 1e-4 < area.min() < 0.22
    assert 0.85 < area.max() < 0.9 + 1e-4
    assert ratio[0] - 1e-4 <= shape.min() <= shape.max() <= ratio[1] + 1e-4
    assert abs(area.mean() - 0.55) < 0.02
    assert abs(np.mean(boxes.mirrored) - 0.5) < 0.05
    never = crops.draw_boxes(jax.random.key(0), 100, (8, 6), flip=False)
    assert not np.any(never.mirrored)


def test_a_patch_holds_the_partner_and_nothing_else():
    """Breaks when a patch mixes up rows and columns, or its bounds."""
    images, partners = _images(seed=1), _images(seed=2)
    rows, cols = (
        np.array([[0, 3], [2, 2], [4, 8], [0, 8]]),
        np.array([[1, 6], [0, 6], [2, 3], [0, 6]]),
    )
    patches = crops.Patches(rows=jnp.asarray(rows, jnp.int32), cols=jnp.asarray(cols, jnp.int32))
    found = np.asarray(crops.mix_patches(jnp.asarray(images), jnp.asarray(partners), patches))
    expected = images.copy()
    for b, ((r0, r1), (c0, c1)) in enumerate(zip(rows, cols, strict=True)):
        expected[b, r0:r1, c0:c1] = partners[b, r0:r1, c0:c1]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_drawn_patches_leave_the_share_that_beta_says(alpha):
    """Breaks when the patch takes the kept share, its side instead of its root, or sticks out."""
    patches = crops.draw_patches(jax.random.key(3), 20000, (32, 24), alpha)
    rows, cols = np.asarray(patches.rows), np.asarray(patches.cols)
    for bounds, side in ((rows, 32), (cols, 24)):
        assert bounds.min() == 0
        assert bounds.max() == side
        assert (bounds[:, 1] >= bounds[:, 0]).all()
    inner = (rows[:, 0] > 0) & (rows[:, 1] < 32) & (cols[:, 0] > 0) & (cols[:, 1] < 24)
    sizes = np.stack([rows[:, 1] - rows[:, 0], cols[:, 1] - cols[:, 0]], axis=1)[inner]
    np.testing.assert_allclose(sizes[:, 0] / 32, sizes[:, 1] / 24, atol=0.04)  # the same shape
    # Share of the centre pixel that is covered, against draws of the same law in NumPy.
    generator = np.random.default_rng(0)
    side = np.sqrt(1 - generator.beta(alpha, alpha, 200000))
    centres = generator.uniform(size=(2, 200000))
    covered = np.all(np.abs(centres - 0.5) <= side / 2, axis=0).mean()
    middle = (rows[:, 0] <= 16) & (rows[:, 1] > 16) & (cols[:, 0] <= 12) & (cols[:, 1] > 12)
    assert abs(middle.mean() - covered) < 0.03


def test_gradient_of_a_crop_is_its_transpose():
    """Breaks when a method that optimises pixels through crops gets a wrong gradient."""
    images, boxes = jnp.asarray(_images()), _boxes([(0.3, 0.2, 5.1, 4.4)] * 4, True)
    other = jnp.asarray(_images((4, 5, 5, 2), seed=3))

    def product(x):
        return jnp.vdot(crops.resize_crop(x, boxes, (5, 5)), other)

    gradient = jax.grad(product)(images)
    np.testing.assert_allclose(jnp.vdot(gradient, images), product(images), rtol=1e-5)
