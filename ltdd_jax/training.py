"""Training of one network as pure functions; experts and evaluation both use it.

Everything is written for one network. Callers `vmap` over a leading axis of keys and states to
train many at once.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ltdd_jax.nets import partition
from ltdd_jax.types import AugmentFn, Batch, Params

# (params, inputs [B, ...], targets [B] or [B, K], weights [B]) -> scalar, or with `has_aux`
# (scalar, params with the statistics after this batch)
LossFn = Callable[[Params, jax.Array, jax.Array, jax.Array], Any]
# (loss as a function of params, params, has_aux=False) -> (loss, direction to descend)
GradientFn = Callable[..., tuple[Any, Params]]


@flax.struct.dataclass
class TrainState:
    """State of one network in training; with a leading axis once vmapped.

    Attributes:
      step: int32 scalar, optimiser steps done.
      params: trainable parameters, and running statistics where the network has some.
      opt_state: momentum of the former.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState


def make_optimizer(
    *, momentum: float, weight_decay: float, nesterov: bool = False
) -> optax.GradientTransformation:
    """v ← μv + (d + wd·w): heavy-ball SGD before the learning rate is applied.

    With `nesterov` the step is d + wd·w + μv.

    Weight decay acts on all parameters, norms and biases included (as published).
    """
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    trace = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(decay, trace)


def make_adam(*, weight_decay: float) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, ICLR 2015) of d + wd·w, before the learning rate is applied."""
    return allow_counts(optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_adam()))


def allow_counts(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser, which may raise floats to the power of its count under strict promotion."""

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)


def init_train_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """State before the first step."""
    trained, _ = partition.split_statistics(params)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=tx.init(trained))


def plain_gradient(loss: Callable[[Params], Any], params: Params, has_aux: bool = False):
    """The gradient itself: (loss, ∇loss)."""
    return jax.value_and_grad(loss, has_aux=has_aux)(params)


def vectorize(
    function: Callable, in_axes: tuple[int | None, ...], lanes: int | None = None
) -> Callable:
    """`jax.vmap` over axis 0, at most `lanes` entries at once, the rest one after the other.

    Where one network already occupies the machine, as on a few CPU cores, a wide vmap only adds
    memory traffic; on an accelerator it is what fills the machine.

    Args:
      function: of as many positional arguments as `in_axes` has entries.
      in_axes: 0 or None for each argument, as for `jax.vmap`.
      lanes: entries computed at once; None is all.
    """
    if lanes is None:
        return jax.vmap(function, in_axes=in_axes)

    def run(*arguments):
        mapped = [a for a, axis in zip(arguments, in_axes, strict=True) if axis == 0]

        def one(entries):
            entries = iter(entries)
            pairs = zip(arguments, in_axes, strict=True)
            return function(*(next(entries) if axis == 0 else a for a, axis in pairs))

        return jax.lax.map(one, mapped, batch_size=lanes if lanes > 1 else None)

    return run


def make_epoch(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    draw_batches: Callable[[jax.Array, jax.Array], Batch],
    augment: AugmentFn,
    gradient: GradientFn = plain_gradient,
    prepare: Callable[[Params, jax.Array], jax.Array] = lambda frozen, images: images,
    has_aux: bool = False,
) -> Callable:
    """Builds one epoch: a scan over its batches.

    Args:
      loss_fn: mean loss of a batch.
      tx: from `make_optimizer`.
      draw_batches: (key, epoch) -> Batch with a leading axis of steps.
      augment: (key, images) -> images, drawn anew for each batch.
      gradient: how the descent direction is formed.
      prepare: (frozen, augmented images) -> inputs of the loss, outside of its derivative.
      has_aux: whether `loss_fn` also returns the parameters with their statistics after the batch;
        neither the gradient nor weight decay touches these.

    Returns:
      `run_epoch(key, epoch, state, frozen, data, learning_rate) -> (state, mean loss)` with
      `epoch` an int32 scalar, `frozen` constant parameters (or {}), `data` = (images [N, H, W, C],
      targets [N] or [N, K]) and `learning_rate` a float32 scalar. The key is that of the whole
      training; the epoch is folded in, so any epoch can be repeated alone.
    """
    # Under vmap a branch on a batched index runs every branch; one network after the other runs
    # only the drawn augmentation, and the rest of the step stays batched.
    augment_in_turn = jax.custom_batching.sequential_vmap(augment)
    # One sort after the other: many side by side take the compiler for TPUs twice as long.
    draw_in_turn = jax.custom_batching.sequential_vmap(draw_batches)

    def run_epoch(key, epoch, state, frozen, data, learning_rate):
        images, targets = data
        batches_key, augment_key = jax.random.split(key)
        batches = draw_in_turn(batches_key, epoch)
        epoch_key = jax.random.fold_in(augment_key, epoch)

        def body(state, inputs):
            index, batch = inputs
            rows = augment_in_turn(jax.random.fold_in(epoch_key, index), images[batch.indices])
            rows = prepare(frozen, rows)

            trained, statistics = partition.split_statistics(state.params)

            def loss(trained):
                params = partition.merge_statistics(trained, statistics)
                return loss_fn(params, rows, targets[batch.indices], batch.weights)

            if has_aux:
                (value, seen), direction = gradient(loss, trained, has_aux=True)
                _, statistics = partition.split_statistics(seen)
            else:
                value, direction = gradient(loss, trained)
            updates, opt_state = tx.update(direction, state.opt_state, trained)
            trained = jax.tree.map(lambda p, v: p - learning_rate * v, trained, updates)
            params = partition.merge_statistics(trained, statistics)
            state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
            return state, value

        steps = jnp.arange(len(batches.indices))
        state, values = jax.lax.scan(body, state, (steps, batches))
        return state, values.mean()

    return run_epoch
