"""Breaks when expensive cells come before cheap ones, or shared work is counted twice."""

import pytest

from ltdd_jax.table import order
from tests.table.made_up import make_cost

SAME = dict.fromkeys("abcd", "here")


def test_cheap_cells_come_first_and_equal_ones_keep_their_order():
    costs = {"a": make_cost(3e12), "b": make_cost(1e12), "c": make_cost(2e12), "d": make_cost(1e12)}
    assert order.order_cells(costs, SAME, frozenset()) == ["b", "d", "c", "a"]


def test_experts_count_once_and_pull_the_cells_forward_that_share_them():
    """Alone b (3) is cheaper than c (5 + 1); after a has made the experts, c costs 1."""
    costs = {
        "a": make_cost(0.5e12, "experts", each=1.5e12),
        "b": make_cost(3e12),
        "c": make_cost(1e12, "experts", each=5e12),
    }
    assert order.order_cells(costs, SAME, frozenset()) == ["a", "c", "b"]
    works = order.sum_left(["a", "c", "b"], costs, SAME, frozenset())
    assert works == pytest.approx([x * 1e12 + order.OVERHEAD for x in (2, 1, 3)])


def test_nothing_is_shared_between_directories():
    costs = {"a": make_cost(1e12, "experts"), "b": make_cost(1e12, "experts")}
    apart = order.sum_left(["a", "b"], costs, {"a": "one", "b": "two"}, frozenset())
    assert apart == pytest.approx([2e12 + order.OVERHEAD] * 2)


def test_what_is_on_disk_or_made_by_finished_cells_costs_nothing():
    costs = {"a": make_cost(1e12, "x", "y", there=("x",))}
    one = order.sum_left(["a"], costs, SAME, frozenset())
    assert one == pytest.approx([2e12 + order.OVERHEAD])
    none = order.sum_left(["a"], costs, SAME, frozenset({("here", "y")}))
    assert none == pytest.approx([1e12 + order.OVERHEAD])
