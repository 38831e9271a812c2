"""Teachers: networks trained on the real long-tailed set whose last epoch is kept.

A teacher labels, scores crops, or lends its statistics; recipes differ in what they do about the
long tail. Written for one network; all functions are pure.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
from ltdd_jax.nets import Network
from ltdd_jax.teachers import balance, glmc
from ltdd_jax.types import AugmentFn, Batch

RECIPES = (*balance.SHIFTS, "glmc")
SCHEDULES = ("cosine", "constant", "step")
_STEPS, _STEP_FACTOR = (0.6, 0.8), 0.1  # shares of the epochs after which the rate falls


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a teacher is optimised; defaults in the section of the config.

    Attributes:
      recipe: of `RECIPES`.
      num_epochs: passes over the data.
      batch_size: rows per step; the short batch of an epoch is left out.
      learning_rate: of the first epoch.
      momentum: of SGD.
      nesterov: whether the gradient is taken ahead of the momentum.
      weight_decay: L2 coefficient, all trained parameters.
      schedule: of `SCHEDULES`, see `learning_rates`.
      tau: strength of logit_adjusted.
      weight_power: q of GLMC's class weights.
      sampling_power: p of GLMC's second batch, whose classes are drawn as N_c^p.
      similarity: weight of GLMC's two views being alike.
    """

    recipe: str
    num_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: str
    tau: float
    weight_power: float
    sampling_power: float
    similarity: float


@dataclasses.dataclass(frozen=True)
class Training:
    """The pure functions that make a teacher.

    Attributes:
      init: key -> state.
      run_epoch: (key, epoch, state, data) -> (state, mean loss); the same key in all epochs.
      finish: state -> parameters of the network alone, statistics included.
      num_epochs: epochs are 0..num_epochs - 1.
    """

    init: Callable
    run_epoch: Callable
    finish: Callable
    num_epochs: int


def learning_rates(schedule: str, learning_rate: float, num_epochs: int) -> np.ndarray:
    """The rate of every epoch, float32 [E].

    cosine is rate · (1 + cos(π t / E)) / 2 for t = 0..E - 1; step has a tenth after 60 % and again
    after 80 % of the epochs; constant stays.

    Raises:
      ValueError: unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {SCHEDULES}, not {schedule!r}")
    share = np.arange(num_epochs) / num_epochs
    factors = {
        "cosine": (1 + np.cos(np.pi * share)) / 2,
        "constant": np.ones(num_epochs),
        "step": np.prod([np.where(share >= at, _STEP_FACTOR, 1.0) for at in _STEPS], axis=0),
    }
    return (learning_rate * factors[schedule]).astype(np.float32)


def make_training(
    network: Network, recipe: Recipe, augment: AugmentFn, class_counts: Sequence[int]
) -> Training:
    """Builds the training of one teacher.

    Args:
      network: built for the data.
      recipe: hyper-parameters.
      augment: drawn anew for each batch.
      class_counts: [K], each at least 1; rows of the training set are sorted by class.

    Returns:
      The functions; data = (images [N, H, W, C], labels int32 [N]).

    Raises:
      ValueError: unknown recipe or schedule.
    """
    tx = training.make_optimizer(
        momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    rates = learning_rates(recipe.schedule, recipe.learning_rate, recipe.num_epochs)
    made = (_make_glmc if recipe.recipe == "glmc" else _make_shifted)(
        network, recipe, augment, class_counts
    )
    epoch_of = training.make_epoch(tx=tx, has_aux=True, **made.epoch)

    def init(key):
        network_key, more_key = jax.random.split(jax.random.fold_in(key, 0))
        params = made.extend(more_key, network.init(network_key))
        return training.init_train_state(params, tx)

    def run_epoch(key, epoch, state, data):
        progress = jnp.square(epoch / recipe.num_epochs).astype(jnp.float32)
        rate = jnp.asarray(rates)[epoch]
        return epoch_of(jax.random.fold_in(key, 1), epoch, state, progress, data, rate)

    def finish(state):
        return glmc.drop_heads(state.params)

    return Training(init, run_epoch, finish, recipe.num_epochs)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a recipe is made of: arguments of `training.make_epoch`, and further parameters."""

    epoch: dict
    extend: Callable = lambda key, params: params


def _make_shifted(network, recipe, augment, class_counts):
    """Cross-entropy on shifted logits."""
    shift = balance.logit_shift(recipe.recipe, class_counts, recipe.tau)

    def loss_fn(params, images, labels, weights):
        logits, params = network.train(params, images, weights)
        return (weights * losses.cross_entropy(logits + shift[None], labels)).sum(), params

    def draw_batches(key, epoch):
        return _draw_whole(jax.random.fold_in(key, epoch), sum(class_counts), recipe.batch_size)

    return _Parts({"loss_fn": loss_fn, "draw_batches": draw_batches, "augment": augment})


def _make_glmc(network, recipe, augment, class_counts):
    """Pairs of rows, two views of each pair: natural sampling first, then the balanced partner."""

    def draw_batches(key, epoch):
        natural_key, partner_key = jax.random.split(jax.random.fold_in(key, epoch))
        natural = _draw_whole(natural_key, sum(class_counts), recipe.batch_size).indices
        partners = balance.draw_rows(
            partner_key, natural.shape, class_counts, recipe.sampling_power
        )
        rows = jnp.concatenate([natural, partners], axis=1)
        return Batch(indices=rows, weights=jnp.full(rows.shape, 1 / rows.shape[1], jnp.float32))

    loss_fn = glmc.make_loss(
        network,
        balance.class_weights(class_counts, recipe.weight_power),
        similarity=recipe.similarity,
    )
    epoch = {
        "loss_fn": loss_fn,
        "draw_batches": draw_batches,
        "augment": glmc.make_views(augment),
        "prepare": lambda progress, views: (progress, views),
    }
    return _Parts(epoch, glmc.add_heads)


def _draw_whole(key, num_rows, batch_size):
    """A shuffled pass without the short batch at its end."""
    batches = batching.shuffle_epoch(key, num_rows, batch_size)
    whole = max(num_rows // batch_size, 1)
    return jax.tree.map(lambda x: x[:whole], batches)
