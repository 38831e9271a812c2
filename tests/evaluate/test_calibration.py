"""ADSA against a case whose answer is known, and the properties of its definition."""

import numpy as np
import pytest
from scipy import special, stats

from ltdd_jax.evaluate import calibration

PRIOR = np.array([0.9, 0.1])


def _two_gaussians():
    """Logits of the exact posterior for N(-1, 1) and N(1, 1), samples mirrored; labels."""
    x = np.random.default_rng(0).normal(-1, 1, 400)
    points, labels = np.concatenate([x, -x]), np.repeat([0, 1], len(x))
    density = np.stack([stats.norm.logpdf(points, -1), stats.norm.logpdf(points, 1)], axis=1)
    return np.log(PRIOR) + density, labels


def test_prior_of_two_gaussians_is_taken_out():
    """Breaks when the prior enters with the other sign, or shares are averaged over all images."""
    logits, labels = _two_gaussians()
    assert calibration.measure_spread(logits, labels, PRIOR, 1.0) < 1e-12
    assert calibration.measure_spread(logits, labels, PRIOR, 0.0) > 0.1
    assert calibration.find_tau(logits, labels, PRIOR) == pytest.approx(1, abs=1e-5)


def test_balanced_prior_leaves_the_labels():
    """Breaks when a tau without effect is looked for among rounding errors."""
    logits = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    labels = np.arange(30) % 3
    prior = np.full(3, 1 / 3)
    assert calibration.find_tau(logits, labels, prior) == 0
    shifted = calibration.shift_logits(logits, prior, 1.7)
    assert shifted.dtype == np.float32
    np.testing.assert_allclose(
        special.softmax(shifted, axis=1), special.softmax(logits, axis=1), atol=1e-6
    )


def test_constants_of_rows_are_irrelevant_and_missing_classes_are_left_out():
    """Breaks when tau depends on what softmax takes out, or an absent class counts as unsure."""
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(40, 4)) + np.log([0.7, 0.2, 0.07, 0.03])
    labels, prior = np.arange(40) % 3, np.array([0.7, 0.2, 0.07, 0.03])
    found = calibration.find_tau(logits, labels, prior)
    moved = logits + generator.normal(size=(40, 1))
    assert calibration.find_tau(moved, labels, prior) == pytest.approx(found, abs=1e-5)
    assert 0 < found < 3
    # By hand at one tau, class after class.
    shares = special.softmax(logits - 0.5 * np.log(prior), axis=1)
    means = [shares[labels == k, k].mean() for k in range(3)]
    expected = np.std(means)
    assert calibration.measure_spread(logits, labels, prior, 0.5) == pytest.approx(expected)


def test_golden_section_goes_beyond_the_scan():
    """Breaks when the best tau of the scan is taken as it is."""
    logits, labels = _two_gaussians()
    logits = logits + 0.2345 * np.log(PRIOR)  # as if the prior stood in it 1.2345 times
    assert calibration.find_tau(logits, labels, PRIOR) == pytest.approx(1.2345, abs=1e-5)
