"""Whether numbers are still fit to be saved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_finite(tree: Any) -> bool:
    """Whether no floating leaf has a NaN or an infinity; NumPy arrays do not touch a device."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return all(bool((np if isinstance(x, np.ndarray) else jnp).isfinite(x).all()) for x in leaves)
