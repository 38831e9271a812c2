"""Which crops are kept, against lists made by hand and by brute force."""

import numpy as np
import pytest

from ltdd_jax.distill import confident_crops


def select_by_force(scores, count):
    """RDED: of all (image, best crop) the lowest, by looking at every pair of images."""
    best = [(min(row), image, list(row).index(min(row))) for image, row in enumerate(scores)]
    kept = [a for a in best if sum(b < a for b in best) < count]
    return [(image, crop) for _, image, crop in sorted(kept)]


def test_enough_images_give_their_best_crops():
    """Breaks when one image gives two crops, or the highest cross-entropy is taken."""
    for seed in range(20):
        scores = np.random.default_rng(seed).exponential(size=(9, 5))
        found = confident_crops.choose_in_rounds(scores, 4)
        assert [tuple(pair) for pair in found] == select_by_force(scores, 4)


def test_rounds_by_hand():
    """Two images with three crops each: who offers what is written down for every round."""
    scores = np.array([[0.5, 0.1, 0.9], [0.2, 0.8, 0.3]])
    offers = [(0, 1), (1, 0)], [(1, 2), (0, 0)], [(1, 1), (0, 2)]
    for count, expected in [
        (1, [(0, 1)]),
        (2, [*offers[0]]),
        (3, [*offers[0], (1, 2)]),
        (5, [*offers[0], *offers[1], (1, 1)]),
        (9, [*offers[0], *offers[1], *offers[2]]),
    ]:
        found = confident_crops.choose_in_rounds(scores, count)
        assert [tuple(pair) for pair in found] == expected


@pytest.mark.parametrize("count", [1, 3, 4, 7, 12, 20])
def test_rounds_against_a_list_of_offers(count):
    """A plain loop that asks each image in turn for its best crop that is still free."""
    scores = np.random.default_rng(count).exponential(size=(4, 3))
    used, expected = set(), []
    while len(expected) < count and len(used) < scores.size:
        round_of = []
        for image in range(4):
            free = [(scores[image, crop], crop) for crop in range(3) if (image, crop) not in used]
            if free:
                round_of.append((min(free)[0], image, min(free)[1]))
        for _, image, crop in sorted(round_of)[: count - len(expected)]:
            expected.append((image, crop))
        used.update((image, crop) for _, image, crop in round_of)
    found = confident_crops.choose_in_rounds(scores, count)
    assert [tuple(pair) for pair in found] == expected
