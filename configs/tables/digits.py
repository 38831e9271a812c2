"""All methods on handwritten digits, in both blocks: a table that a laptop makes.

    python -m ltdd_jax.table --config=configs/tables/digits.py
    python -m ltdd_jax.table --config=configs/tables/digits.py:ci

`full` has the settings of `configs/digits_lt.py`. `ci` takes the same path with networks that have
hardly been trained, to see that every method works; its accuracies mean nothing. There are no
published numbers for these data.

Whether images or labels win is seen in the rows of `full` whose images have soft labels of the
teacher in block (i), and in those of methods with soft labels of their own in block (ii).
"""

from ltdd_jax.config import METHODS, parse_argument
from ltdd_jax.table import Cell, Table

_BOTH = {"evaluation.blocks": ("i", "ii")}
# Of `ci`: two networks per row and one rate instead of a comparison.
_FAST = {"evaluation.num_seeds": 2, "evaluation.baseline_rates": (0.05,)}
_SOFT = {"labels.relabel": "teacher", "evaluation.blocks": ("i",)}


def get_table(argument: str = "") -> Table:
    """Returns the table; `argument` is "full" or "ci"."""
    variant, _, _ = parse_argument(argument, ("full", "ci"))
    if variant == "ci":
        cells = [
            Cell("digits_lt", method, argument="smoke", overrides=_BOTH | _FAST, name=method)
            for method in METHODS
        ]
        return Table("All methods on Digits-LT, hardly trained", tuple(cells), "table_digits_ci")
    cells = [Cell("digits_lt", method, overrides=_BOTH, name=method) for method in METHODS]
    cells += [
        Cell(
            config="digits_lt",
            method=method,
            overrides=_SOFT,
            name=f"{method}_soft",
            title=f"{title}, soft labels of the teacher",
        )
        for method, title in (("random", "random real images, drawn once"), ("rldd", "RLDD"))
    ]
    return Table("All methods on Digits-LT", tuple(cells), "table_digits")
