"""The measures of DD-Ranking at the ends of their ranges."""

import pytest

from ltdd_jax.evaluate import ranking


def test_score_at_the_ends_of_its_range():
    """Breaks when the score is not mapped to [0, 1], or percent are taken for shares."""
    assert ranking.label_robust_score(-100, 100) == pytest.approx(0)
    assert ranking.label_robust_score(100, -100) == pytest.approx(1)
    assert ranking.label_robust_score(0, 0) == pytest.approx((1 - 0.367879) / (2.718282 - 0.367879))


def test_score_rewards_improvement_and_punishes_lost_accuracy():
    """Breaks when a sign is exchanged."""
    middle = ranking.label_robust_score(10, 20)
    assert ranking.label_robust_score(11, 20) > middle > ranking.label_robust_score(10, 21)
    assert ranking.label_robust_score(30, 90, weight=1.0) == ranking.label_robust_score(
        30, 10, weight=1.0
    )


def test_recovery_and_improvement():
    assert ranking.hard_label_recovery(90, 60) == 30
    assert ranking.improvement_over_random(55, 50) == 5
