"""DD-Ranking: what a distilled set is worth apart from its labels and its protocol.

Accuracies are in percent, so are recovery and improvement; the score is a number from 0 to 1.
"""

import math

_WEIGHT = 0.5  # of the improvement over random, the rest is that of the recovery


def hard_label_recovery(real_whole: float, synthetic_hard: float) -> float:
    """HLR: what hard labels on the distilled images lose against the whole real set.

    Args:
      real_whole: accuracy of networks trained on the whole real set with hard labels.
      synthetic_hard: accuracy of networks trained on the distilled images with hard labels.
    """
    return real_whole - synthetic_hard


def improvement_over_random(synthetic: float, random_real: float) -> float:
    """IOR: what the distilled set gains over random real images under the same protocol."""
    return synthetic - random_real


def label_robust_score(improvement: float, recovery: float, weight: float = _WEIGHT) -> float:
    """LRS: a = w IOR - (1 - w) HLR as fractions, from [-1, 1] to [0, 1] by the exponential.

    Args:
      improvement: IOR in percent.
      recovery: HLR in percent.
      weight: w.
    """
    a = (weight * improvement - (1 - weight) * recovery) / 100
    return (math.exp(a) - math.exp(-1)) / (math.e - math.exp(-1))
