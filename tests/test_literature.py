"""The table of printed numbers: counted and added up from the papers' tables by another reader."""

import pytest

from ltdd_jax import literature


@pytest.mark.parametrize(
    ("data", "count", "mean_sum", "std_sum"),
    [
        ("cifar10", 117, 5289.4, 71.1),
        ("cifar100", 78, 2024.9, 28.8),
        ("tiny_imagenet", 28, 543.6, 7.3),
        ("imagenet", 22, 274.4, 4.4),
    ],
)
def test_numbers_with_a_spread_add_up(data, count, mean_sum, std_sum):
    """Breaks when a digit of a table changes, or a number is lost or stands twice."""
    rows = [row for row in literature.PUBLISHED if row.data == data and row.std is not None]
    assert len(rows) == count
    assert sum(row.mean for row in rows) == pytest.approx(mean_sum, abs=0.01)
    assert sum(row.std for row in rows) == pytest.approx(std_sum, abs=0.01)


@pytest.mark.parametrize(
    ("cell", "mean", "std", "paper"),
    [
        (("cifar10", 100, 10, "dam_ed"), 53.4, 0.1, "2408.14506"),
        (("cifar10", 50, 50, "rded"), 53.2, 0.3, "2511.18858"),
        (("cifar10", 200, 50, "datm"), 40.1, None, "2408.14506"),
        (("cifar10", 100, 50, "dam"), 57.1, None, "2408.14506"),
        (("cifar10", 100, 10, "dam_ed", "resnet18"), 43.6, None, "2408.14506"),
        (("cifar10", 100, 10, "rldd", "vgg11"), 64.6, None, "2511.18858"),
        (("cifar10", 100, 1, "rldd"), 44.8, None, "2511.18858"),
        (("cifar100", 50, 10, "edc"), 30.2, 0.2, "2511.18858"),
        (("tiny_imagenet", 100, 20, "mtt"), 7.7, 0.3, "2408.14506"),
        (("imagenet", 10, 10, "tesla"), 2.7, 0.1, "2408.14506"),
    ],
)
def test_a_number_stands_in_its_cell(cell, mean, std, paper):
    """Breaks when columns are named in another order, which leaves every sum as it is."""
    found = literature.find(*cell)
    assert (found.mean, found.std) == (mean, std)
    assert paper in found.source


def test_no_number_is_made_up():
    """Breaks when a dash counts as a number, or two rows claim one cell of one paper."""
    assert literature.find("cifar100", 50, 20, "edc") is None
    assert literature.find("fashion_mnist", 100, 10, "random") is None
    rows = [(p.data, p.imbalance_factor, p.ipc, p.method, p.student) for p in literature.PUBLISHED]
    assert len(set(rows)) == len(rows)
    assert all(0 < p.mean < 100 for p in literature.PUBLISHED)
