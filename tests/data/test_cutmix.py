"""Cutmix: whose pixels, and how much of the label they are worth."""

import jax
import numpy as np

from ltdd_jax.data.cutmix import cutmix

MIX = jax.jit(cutmix)


def test_a_box_comes_from_the_partner_and_the_label_follows_its_area():
    """Breaks when the share counts the box that was drawn and not the one left after the borders,
    or when the images of a batch have different boxes.
    """
    images = np.arange(4, dtype=np.float32)[:, None, None, None] * np.ones((4, 8, 6, 1))
    shares = []
    for seed in range(40):
        mixed, partners, own = MIX(jax.random.key(seed), images.astype(np.float32), 1.0)
        mixed, partners = np.asarray(mixed)[..., 0], np.asarray(partners)
        assert sorted(partners) == [0, 1, 2, 3]
        moved = [row for row in range(4) if partners[row] != row]
        if not moved:
            continue
        box = mixed[moved[0]] == partners[moved[0]]
        for row in range(4):
            np.testing.assert_array_equal(mixed[row], np.where(box, partners[row], row))
        np.testing.assert_allclose(float(own), 1 - box.mean(), rtol=1e-6)
        rows, cols = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
        assert box.sum() == len(rows) * len(cols)  # a rectangle
        shares.append(box.mean())
    assert min(shares) < 0.1 and max(shares) >= 0.4


def test_batches_are_mixed_with_the_given_chance():
    """Breaks when the chance is taken the other way round."""
    images = np.arange(4, dtype=np.float32)[:, None, None, None] * np.ones((4, 8, 6, 1))
    images = images.astype(np.float32)
    mixed, _, own = MIX(jax.random.key(0), images, 0.0)
    np.testing.assert_array_equal(mixed, images)
    assert float(own) == 1
    owns = [float(MIX(jax.random.key(seed), images, 0.25)[2]) for seed in range(200)]
    assert 0.08 < (np.array(owns) < 1).mean() < 0.3  # some boxes are empty
