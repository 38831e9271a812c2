"""Methods that make a synthetic set; `ltdd_jax.families` names the function that builds each."""

from ltdd_jax.distill.method import Method, Task, Teacher

__all__ = ["Method", "Task", "Teacher"]
