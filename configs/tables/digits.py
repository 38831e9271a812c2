"""All methods on handwritten digits, in both blocks: a table that a laptop makes.

    python -m ltdd_jax.table --config=configs/tables/digits.py
    python -m ltdd_jax.table --config=configs/tables/digits.py:ci

`full` has the settings of `configs/digits_lt.py`. `ci` takes the same path with networks that have
hardly been trained, to see that every method works; its accuracies mean nothing. There are no
published numbers for these data.
"""

from ltdd_jax.config import METHODS, parse_argument
from ltdd_jax.table import Cell, Table

# Of `ci`: two networks per row and one rate instead of a comparison.
_FAST = {"evaluation.num_seeds": 2, "evaluation.baseline_rates": (0.05,)}


def get_table(argument: str = "") -> Table:
    """Returns the table; `argument` is "full" or "ci"."""
    variant, _, _ = parse_argument(argument, ("full", "ci"))
    is_fast = variant == "ci"
    cells = tuple(
        Cell(
            config="digits_lt",
            method=method,
            argument="smoke" if is_fast else "",
            overrides=_FAST if is_fast else {},
            name=method,
        )
        for method in METHODS
    )
    name = f"table_digits{'_ci' if is_fast else ''}"
    return Table("All methods on Digits-LT", cells, name)
