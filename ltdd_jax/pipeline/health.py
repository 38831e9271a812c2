"""Whether numbers are still fit to be saved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_finite(tree: Any) -> bool:
    """Whether no floating leaf has a NaN or an infinity; NumPy arrays do not touch a device."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    on_host = [x for x in leaves if isinstance(x, np.ndarray)]
    on_devices = [x for x in leaves if not isinstance(x, np.ndarray)]
    return all(np.isfinite(x).all() for x in on_host) and bool(_are_finite(on_devices))


@jax.jit
def _are_finite(leaves):
    """One program for all leaves."""
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else True
