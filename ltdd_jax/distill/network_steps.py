"""Networks that methods without experts train or settle themselves, batch norms included."""

from collections.abc import Callable

import jax
import optax

from ltdd_jax.nets import Network, partition
from ltdd_jax.types import Params

_SETTLING = 16  # real images of each class


def descend(
    network: Network,
    tx: optax.GradientTransformation,
    rate: float,
    carry: tuple[Params, optax.OptState],
    images: jax.Array,
    weights: jax.Array,
    measure: Callable[[jax.Array], jax.Array],
) -> tuple[tuple[Params, optax.OptState], jax.Array]:
    """One optimiser step of a network; running statistics go along and are not decayed.

    Args:
      network: the architecture.
      tx: made for the parameters without statistics.
      rate: learning rate.
      carry: parameters and state of `tx`.
      images: [B, H, W, C].
      weights: [B], of the mean over rows.
      measure: logits [B, K] -> loss of every row.

    Returns:
      The next `carry`, and the logits before the step.
    """
    params, opt_state = carry
    trained, statistics = partition.split_statistics(params)

    def loss(trained):
        params = partition.merge_statistics(trained, statistics)
        logits, seen = network.train(params, images, weights)
        return weights @ measure(logits), (logits, seen)

    gradient, (logits, seen) = jax.grad(loss, has_aux=True)(trained)
    updates, opt_state = tx.update(gradient, opt_state, trained)
    trained = jax.tree.map(lambda p, u: p - rate * u, trained, updates)
    _, statistics = partition.split_statistics(seen)
    return (partition.merge_statistics(trained, statistics), opt_state), logits


def init_optimizer(tx: optax.GradientTransformation, params: Params) -> optax.OptState:
    """State of `tx` for what gradients move."""
    trained, _ = partition.split_statistics(params)
    return tx.init(trained)


def settle(network: Network, params: Params, real: jax.Array, rows, weights) -> Params:
    """Parameters whose statistics have seen a few real images; the same where there are none.

    The published program of DC does this before it matches a network with batch norms, which are
    then frozen: those of single classes would say which class it is.

    Args:
      network: the architecture.
      params: its parameters.
      real: [N, H, W, C].
      rows: int32 [K, B], images of every class, of which 16 are used.
      weights: [K, B], 0 on padding.
    """
    if not network.has_statistics:
        return params
    rows = rows[:, :_SETTLING].reshape(-1)
    present = (weights[:, :_SETTLING].reshape(-1) > 0).astype(real.dtype)
    _, params = network.train(params, real[rows], present / present.sum())
    return params
