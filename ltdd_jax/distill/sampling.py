"""Which expert and which start epoch every outer iteration uses, decided in advance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def schedule_experts(
    key: jax.Array, num_iterations: int, num_experts: int, experts_per_file: int
) -> np.ndarray:
    """Order in which experts are used: every one once per pass, shuffled on two levels.

    The published implementations store trajectories in files; they shuffle the files in each
    pass and the experts inside a file. Iteration i is at place i mod E of pass i div E.

    Args:
      key: typed key of this phase.
      num_iterations: length of the schedule; a longer one begins with the shorter.
      num_experts: E.
      experts_per_file: experts that stay together in a pass; E or more shuffles all.

    Returns:
      int32 [num_iterations], values in 0..E-1.
    """
    passes = np.arange(-(-num_iterations // num_experts))
    order = _order_experts(key, passes, num_experts, experts_per_file)
    return np.asarray(order, np.int32).reshape(-1)[:num_iterations]


# Compiled once for both phases.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _order_experts(key, passes, num_experts, experts_per_file):
    file_of = np.arange(num_experts) // experts_per_file
    num_files = int(file_of[-1]) + 1

    def one_pass(index):
        files_key, experts_key = jax.random.split(jax.random.fold_in(key, index))
        file_rank = jax.random.permutation(files_key, num_files)[file_of]
        return jnp.lexsort((jax.random.permutation(experts_key, num_experts), file_rank))

    return jax.vmap(one_pass)(passes)


def upper_start_epochs(
    num_iterations: int,
    *,
    min_epoch: int,
    current_epoch: int,
    max_epoch: int,
    sequential: bool,
    expansion_end: int,
) -> np.ndarray:
    """Exclusive upper end U of the start range at every iteration; int32 [num_iterations].

    Without `sequential` it is max_epoch. With it (sequential generation, DATM)
    U = min(current + int((max - current)·it / expansion_end), max), and at least min + 1: the
    published code draws from an empty range when current is 0.
    """
    if not sequential:
        return np.full(num_iterations, max_epoch, np.int32)
    steps = np.arange(num_iterations)
    growth = ((max_epoch - current_epoch) * steps / expansion_end).astype(np.int64)
    upper = np.minimum(current_epoch + growth, max_epoch)
    return np.maximum(upper, min_epoch + 1).astype(np.int32)


def schedule_start_epochs(key: jax.Array, min_epoch: int, upper_epochs: np.ndarray) -> np.ndarray:
    """Start epochs, uniform on [min_epoch, U(it)).

    Args:
      key: typed key of this phase; iteration i uses fold_in(key, i).
      min_epoch: smallest start epoch.
      upper_epochs: int32 [I] from `upper_start_epochs`.

    Returns:
      int32 [I].
    """
    indices = np.arange(len(upper_epochs))
    return np.asarray(_draw_epochs(key, indices, np.int32(min_epoch), upper_epochs), np.int32)


@jax.jit
def _draw_epochs(key, indices, min_epoch, upper_epochs):
    def one(index, upper):
        return jax.random.randint(jax.random.fold_in(key, index), (), min_epoch, upper)

    return jax.vmap(one)(indices, upper_epochs)
