"""Weights, shifts and draws of a long tail against closed forms."""

import jax
import numpy as np
import pytest

from ltdd_jax.teachers import balance

COUNTS = (90, 30, 10)


def test_class_weights_by_hand():
    """Breaks when the power changes its sign, or the weights sum to one."""
    weights = balance.class_weights(COUNTS, 0.8)
    inverse = [1 / count**0.8 for count in COUNTS]
    np.testing.assert_allclose(weights, [3 * x / sum(inverse) for x in inverse], rtol=1e-6)
    assert weights.sum() == pytest.approx(3) and weights.dtype == np.float32
    np.testing.assert_array_equal(balance.class_weights(COUNTS, 0.0), np.ones(3))


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("recipe", ["logit_adjusted", "balanced_softmax"])
def test_the_adjusted_minimiser_knows_no_prior(recipe):
    """Two unit normals at -1 and 1 with 9 : 1 images, whose log-likelihood ratio is 2x.

    Breaks when the shift has the wrong sign or strength: the expected loss is then not stationary
    at the balanced logits (0, 2x), whose boundary is at 0; the plain one's is at log(9) / 2.
    """
    x = np.linspace(-4, 4, 161)[:, None]
    counts = (900, 100)
    joint = np.array([[0.9, 0.1]]) * np.exp(-0.5 * (x - np.array([[-1, 1]])) ** 2)

    def slope(logits, recipe):
        shifted = logits + balance.logit_shift(recipe, counts, tau=1.0)
        return joint.sum(axis=1, keepdims=True) * softmax(shifted) - joint

    balanced = np.concatenate([0 * x, 2 * x], axis=1)
    natural = balanced + np.array([[0, -np.log(9)]])
    assert np.abs(slope(balanced, recipe)).max() < 1e-6
    assert np.abs(slope(natural, "plain")).max() < 1e-6
    assert np.abs(slope(natural, recipe)).max() > 1e-2
    boundaries = [x[np.argmax(f[:, 1] > f[:, 0]), 0] for f in (balanced, natural)]
    np.testing.assert_allclose(boundaries, [0, np.log(9) / 2], atol=0.06)


def test_strength_and_unknown_recipes():
    shift = balance.logit_shift("logit_adjusted", COUNTS, tau=2.0)
    np.testing.assert_allclose(shift, 2 * np.log(np.array(COUNTS) / 130), rtol=1e-6)
    with pytest.raises(ValueError, match="recipe"):
        balance.logit_shift("adjusted", COUNTS)


@pytest.mark.parametrize("power", [0.0, 0.8, 1.0])
def test_rows_are_drawn_by_the_power_of_the_count(power):
    """Breaks when the power acts on images instead of classes, or a class reads another's rows."""
    rows = np.asarray(balance.draw_rows(jax.random.key(0), (200, 100), COUNTS, power))
    assert rows.min() == 0 and rows.max() == 129
    labels = np.searchsorted(np.cumsum(COUNTS), rows, side="right")
    mass = np.array(COUNTS) ** power
    shares = np.bincount(labels.ravel()) / rows.size
    np.testing.assert_allclose(shares, mass / mass.sum(), atol=0.012)
    for label, count in enumerate(COUNTS):  # within a class all images alike
        often = np.bincount(rows[labels == label] - sum(COUNTS[:label]), minlength=count)
        assert len(often) == count and often.min() > 0.5 * often.mean()
