"""Declarations of the families of methods beside trajectories and selections, one module each.

A module calls `families.register` and imports nothing of JAX, since configs are read without it.
"""

from ltdd_jax.catalogue import (
    crops,
    distribution_matching,
    dream,
    gradient_matching,
    kernel,
    recovery,
)

__all__ = ["crops", "distribution_matching", "dream", "gradient_matching", "kernel", "recovery"]
