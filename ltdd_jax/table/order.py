"""In which order cells run: results come early, and what cells share is made when it is needed."""

from collections.abc import Mapping, Sequence
from typing import Protocol

# Starting and compiling take as long as this many multiplications and additions on a processor.
OVERHEAD = 1e11


class Cost(Protocol):
    """What `pipeline.Cost` is; here, so that nothing imports JAX."""

    own: float
    shared: Mapping[str, float]
    there: frozenset[str]
    has_begun: bool


def order_cells(
    costs: Mapping[str, Cost], places: Mapping[str, str], made: frozenset[tuple[str, str]]
) -> list[str]:
    """Always the cell next that is finished soonest, given all that those before it have made.

    Args:
      costs: cell -> cost; equal costs keep this order.
      places: cell -> directory; things are shared within one.
      made: (directory, name) of what is there already.

    Returns:
      All cells.
    """
    waiting, done, result = list(costs), set(made), []
    while waiting:
        chosen = min(waiting, key=lambda cell: left_of(costs[cell], places[cell], done))
        waiting.remove(chosen)
        result.append(chosen)
        done |= shares_of(costs[chosen], places[chosen])
    return result


def left_of(cost: Cost, place: str, made: set[tuple[str, str]] | frozenset) -> float:
    """Work for a cell when `made` is there, its start included."""
    missing = [
        flops
        for name, flops in cost.shared.items()
        if name not in cost.there and (place, name) not in made
    ]
    return OVERHEAD + cost.own + sum(missing)


def shares_of(cost: Cost, place: str) -> set[tuple[str, str]]:
    """What is there once the cell is finished."""
    return {(place, name) for name in cost.shared}


def sum_left(
    cells: Sequence[str],
    costs: Mapping[str, Cost],
    places: Mapping[str, str],
    made: frozenset[tuple[str, str]],
) -> list[float]:
    """Work of each of the cells, in this order, given all that those before it have made."""
    done, result = set(made), []
    for cell in cells:
        result.append(left_of(costs[cell], places[cell], done))
        done |= shares_of(costs[cell], places[cell])
    return result
