"""Fresh networks trained on a labelled set: what a distilled set is worth (several at once)."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
from ltdd_jax.nets import Network
from ltdd_jax.types import AugmentFn

_DROP_FACTOR = 0.1
_TEST_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Pure functions over E networks at once; the leading axis of keys and states is E.

    Attributes:
      init: keys [E] -> states.
      run_epochs: (keys [E], epochs int32 [n], states, data, learning rates [E, n]) ->
        (states, losses [E, n]).
      predict: (states, images [B, H, W, C]) -> classes int32 [E, B].
    """

    init: Callable
    run_epochs: Callable
    predict: Callable


def learning_rates(step_size: float, num_epochs: int) -> np.ndarray:
    """The schedule of trajectory matching: epochs 0..E inclusive, ×0.1 after epoch E//2 + 1.

    Args:
      step_size: learning rate of the first part, for a distilled set the learned one.
      num_epochs: nominal number E.

    Returns:
      float32 [E + 1].
    """
    epochs = np.arange(num_epochs + 1)
    return np.where(epochs < drop_epoch(num_epochs), step_size, _DROP_FACTOR * step_size).astype(
        np.float32
    )


def drop_epoch(num_epochs: int) -> int:
    """First epoch at the lower rate; the momentum starts anew there."""
    return num_epochs // 2 + 2


def warm_up_rates(highest: float, num_epochs: int) -> np.ndarray:
    """The released program's alternative, for Adam: a linear rise, then a cosine down to 0.

    Args:
      highest: learning rate after half of the epochs.
      num_epochs: nominal number E.

    Returns:
      float32 [E + 1], epochs 0..E inclusive.
    """
    rise = max(1, num_epochs // 2)
    up = np.arange(1, rise + 1) / rise
    length = num_epochs + 1 - rise
    down = (1 + np.cos(np.pi * np.arange(length) / length)) / 2
    return (highest * np.concatenate([up, down])).astype(np.float32)


def make_evaluator(
    network: Network,
    augment: AugmentFn,
    *,
    num_rows: int,
    num_epochs: int,
    batch_size: int,
    momentum: float,
    weight_decay: float,
    data_per_network: bool = False,
    adam: bool = False,
    lanes: int | None = None,
    spread: Callable = lambda function, in_axes: function,
) -> Evaluator:
    """Builds the protocol of trajectory matching (MTT and its successors).

    SGD with momentum and decay on all parameters, batches shuffled with the short one kept, one
    augmentation per batch, plain soft cross-entropy (never class weights).

    Args:
      network: built for the data.
      augment: drawn anew for each batch.
      num_rows: rows of the training set.
      num_epochs: nominal number, see `learning_rates`.
      batch_size: rows per step.
      momentum: of SGD.
      weight_decay: of SGD.
      data_per_network: the data have a leading axis E, one set for each network.
      adam: Adam in place of SGD, whose momentum is not read and which never starts anew.
      lanes: networks trained at once, see `training.vectorize`.
      spread: (function over E networks, in_axes) -> the same function, over several devices.

    Returns:
      The functions; data = (images [N, H, W, C], label logits [N, K]).
    """
    make = training.make_adam if adam else partial(training.make_optimizer, momentum=momentum)
    tx = make(weight_decay=weight_decay)

    def draw_batches(key, epoch):
        return batching.shuffle_epoch(jax.random.fold_in(key, epoch), num_rows, batch_size)

    def loss_fn(params, images, label_logits, weights):
        logits, params = network.train(params, images, weights)
        return (weights * losses.soft_cross_entropy(logits, label_logits)).sum(), params

    run_epoch = training.make_epoch(
        loss_fn, tx, draw_batches=draw_batches, augment=augment, has_aux=True
    )

    def run_epochs(key, epochs, state, data, rates):
        def body(state, inputs):
            epoch, rate = inputs
            if not adam:
                state = _restart(state, epoch == drop_epoch(num_epochs))
            return run_epoch(jax.random.fold_in(key, 1), epoch, state, {}, data, rate)

        return jax.lax.scan(body, state, (epochs, rates))

    def predict(state, images):
        return jnp.argmax(network.apply(state.params, images), axis=-1).astype(jnp.int32)

    axes = (0, None, 0, 0 if data_per_network else None, 0)
    return Evaluator(
        # In turn: random numbers for many at once take the compiler twice as long.
        init=training.vectorize(partial(_init, network, tx), (0,), 1),
        run_epochs=spread(training.vectorize(run_epochs, axes, lanes), axes),
        predict=spread(jax.vmap(predict, in_axes=(0, None)), (0, None)),
    )


def _init(network, tx, key):
    return training.init_train_state(network.init(jax.random.fold_in(key, 0)), tx)


def _restart(state, is_due):
    """The state with the momentum at 0 if that is due."""
    keep = jnp.where(is_due, 0.0, 1.0)
    return state.replace(opt_state=jax.tree.map(lambda v: keep * v, state.opt_state))


def predict_in_blocks(predict: Callable, images: np.ndarray) -> np.ndarray:
    """Predictions of several networks in blocks of one shape, so that one program serves all.

    Args:
      predict: images [B, H, W, C] -> classes int32 [E, B], as NumPy array or on a device.
      images: [N, H, W, C], N at least 1; the last block is padded.

    Returns:
      int32 [E, N].
    """
    parts = []
    for begin in range(0, len(images), _TEST_BATCH):
        block = images[begin : begin + _TEST_BATCH]
        padding = np.repeat(block[-1:], _TEST_BATCH - len(block), axis=0)
        parts.append(np.asarray(predict(np.concatenate([block, padding])))[:, : len(block)])
    return np.concatenate(parts, axis=1)
