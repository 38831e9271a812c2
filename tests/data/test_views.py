"""Views of a set: what a key and a number reproduce."""

import jax
import numpy as np
import pytest

from ltdd_jax.data import views
from tests.reference import views as oracle

SIZE, NUM_ROWS = (5, 4), 6


def _images():
    return np.random.default_rng(0).normal(size=(NUM_ROWS, *SIZE, 2)).astype(np.float32)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_view_is_cropped_mirrored_and_mixed_with_the_partners_crop(cutmix):
    """Breaks when a patch comes from the uncropped partner, or a row depends on the others."""
    images, recipe = _images(), views.Recipe(area=(0.3, 1.0), cutmix=cutmix)
    draws = views.draw(jax.random.key(1), 3, NUM_ROWS, SIZE, recipe)
    expected = oracle.view(images.astype(np.float64), *oracle.unpack(draws))
    rows = np.array([4, 1, 4, 0])
    np.testing.assert_allclose(views.take(images, draws, rows), expected[rows], atol=3e-6)
    assert sorted(np.asarray(draws.partners)) == list(range(NUM_ROWS))
    assert np.abs(expected - images).max() > 0.1


def test_stored_views_are_made_again_from_key_and_recipe():
    """Breaks when a view depends on anything but key, number and recipe."""
    images, recipe = _images(), views.Recipe(area=(0.2, 0.8))
    key = jax.random.key(5)
    stored = views.StoredViews(
        np.zeros((3, NUM_ROWS, 2), np.float16), np.asarray(jax.random.key_data(key)), recipe
    )
    seen = []
    for number in range(3):
        draws = views.draw(key, number, NUM_ROWS, SIZE, recipe)
        seen.append(np.asarray(stored.make(images, number)))
        np.testing.assert_array_equal(seen[-1], views.take(images, draws, np.arange(NUM_ROWS)))
    assert np.abs(seen[0] - seen[1]).max() > 0.1


def test_recipe_says_what_it_does():
    assert views.Recipe().describe() == ("random resized crop (area 0.08 to 1), flip, cutmix (1)")
    assert views.Recipe(flip=False, cutmix=0.0).describe() == (
        "random resized crop (area 0.08 to 1)"
    )
