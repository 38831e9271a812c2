"""Methods that make a synthetic set; `FAMILIES` builds each from a task and plain settings."""

from collections.abc import Callable

from ltdd_jax.distill import selection, trajectory
from ltdd_jax.distill.method import Method, Task

# The name of a family is that of the section of the config with its settings.
FAMILIES: dict[str, Callable[..., Method]] = {
    "trajectory": trajectory.make_method,
    "selection": selection.make_method,
}

__all__ = ["FAMILIES", "Method", "Task"]
