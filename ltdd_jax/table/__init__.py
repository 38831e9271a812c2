"""Tables of the literature, cell by cell: `python -m ltdd_jax.table`.

A file in `configs/tables/` says which cells a table has; importing this package alone does not
import JAX.
"""

from ltdd_jax.table.cells import Cell, Table

__all__ = ["Cell", "Table"]
