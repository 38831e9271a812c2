"""Experts: networks trained on the real long-tailed set whose path is kept.

Written for one expert; `jax.vmap` over (key, state) trains a group. All functions are pure.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
from ltdd_jax.data import class_balanced
from ltdd_jax.experts import sharpness, weight_balance
from ltdd_jax.nets import Network, partition
from ltdd_jax.types import AugmentFn, Params


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an expert is optimised; defaults in `config.base_config`.

    Attributes:
      num_epochs: passes over the data; snapshots are taken at 0..num_epochs.
      batch_size: rows per step.
      learning_rate: constant.
      momentum: heavy-ball momentum.
      weight_decay: L2 coefficient, all trained parameters.
      rho: radius of GSAM's perturbation.
      alpha: weight of GSAM's orthogonal part.
      adaptive: scale the perturbation by the weights.
    """

    num_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    rho: float
    alpha: float
    adaptive: bool


@dataclasses.dataclass(frozen=True)
class Expert:
    """The two pure functions that make an expert.

    Attributes:
      init: (key, source params) -> (state, frozen): what is trained and what stays. A
        representation expert ignores the source, a classifier expert starts from it.
      run_epoch: (key, epoch, state, frozen, data) -> (state, mean loss).
      num_epochs: length of the trajectory.
    """

    init: Callable
    run_epoch: Callable
    num_epochs: int


def make_representation_expert(
    network: Network, recipe: Recipe, augment: AugmentFn, num_rows: int
) -> Expert:
    """The whole network on natural sampling with GSAM (arXiv 2408.14506, section 3.3, stage 1).

    Args:
      network: built for the data.
      recipe: hyper-parameters.
      augment: drawn anew for each batch.
      num_rows: images in the training set.
    """
    tx = _optimizer(recipe)

    def init(key, source):
        del source
        return training.init_train_state(network.init(_init_key(key)), tx), {}

    def draw_batches(key, epoch):
        return batching.shuffle_epoch(jax.random.fold_in(key, epoch), num_rows, recipe.batch_size)

    def loss_fn(params, images, labels, weights):
        logits, params = network.train(params, images, weights)
        return (weights * losses.cross_entropy(logits, labels)).sum(), params

    epoch = training.make_epoch(
        loss_fn,
        tx,
        draw_batches=draw_batches,
        augment=augment,
        gradient=_gsam(recipe),
        has_aux=True,
    )
    return _expert(init, epoch, recipe)


def make_classifier_expert(
    network: Network,
    recipe: Recipe,
    augment: AugmentFn,
    class_counts: tuple[int, ...],
    *,
    group_images: int = 4,
    max_norm: bool = False,
    max_norm_threshold: float = 0.1,
) -> Expert:
    """Only the classifier, on class-balanced sampling, over the frozen backbone (stage 2).

    Args:
      network: built for the data.
      recipe: hyper-parameters.
      augment: drawn anew for each batch.
      class_counts: images per class; rows of the training set are sorted by class.
      group_images: consecutive images of one class in the sampler's stream.
      max_norm: project the class vectors after each epoch into a ball (MaxNorm, Alshammari et
        al., CVPR 2022); the published experts do not.
      max_norm_threshold: place of its radius between the smallest (0) and the largest (1) norm
        of the class vectors at the start.
    """
    tx = _optimizer(recipe)

    def init(key, source):
        del key
        _, classifier = partition.split(source)
        return training.init_train_state(classifier, tx), source

    def draw_batches(key, epoch):
        stream = class_balanced.epoch_stream(key, epoch, class_counts, group_images)
        return batching.cut_stream(stream, recipe.batch_size)

    def loss_fn(classifier, features, labels, weights):
        logits = network.classify(classifier, features)
        return (weights * losses.cross_entropy(logits, labels)).sum()

    epoch = training.make_epoch(
        loss_fn,
        tx,
        draw_batches=draw_batches,
        augment=augment,
        gradient=_gsam(recipe),
        prepare=network.embed,
    )
    if max_norm:
        epoch = _with_max_norm(epoch, max_norm_threshold)
    return _expert(init, epoch, recipe)


def train_expert(expert: Expert, key: jax.Array, source: Params, data) -> tuple[Params, jax.Array]:
    """Trains one expert from key to trajectory, as one pure function.

    Args:
      expert: from `make_representation_expert` or `make_classifier_expert`.
      key: typed key of this expert.
      source: parameters a classifier expert starts from; {} for a representation expert.
      data: (images float32 [N, H, W, C], labels int32 [N]).

    Returns:
      Snapshots of the trained parameters with a leading axis num_epochs + 1 (epoch 0 is the
      start) and the mean loss of each epoch.
    """
    state, frozen = expert.init(key, source)

    def body(state, epoch):
        state, loss = expert.run_epoch(key, epoch, state, frozen, data)
        return state, (state.params, loss)

    first = state.params
    _, (rest, loss) = jax.lax.scan(body, state, jnp.arange(expert.num_epochs))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest), loss


def _expert(init, epoch, recipe):
    def run_epoch(key, index, state, frozen, data):
        return epoch(_epochs_key(key), index, state, frozen, data, recipe.learning_rate)

    return Expert(init=init, run_epoch=run_epoch, num_epochs=recipe.num_epochs)


def _with_max_norm(epoch, threshold):
    """Adds the projection after each epoch; the start's classifier in `frozen` sets the radius."""

    def epoch_then_project(key, index, state, frozen, data, learning_rate):
        state, loss = epoch(key, index, state, frozen, data, learning_rate)
        radius = weight_balance.norm_threshold(frozen[partition.CLASSIFIER]["kernel"], threshold)
        head = state.params[partition.CLASSIFIER]
        head = head | {"kernel": weight_balance.project(head["kernel"], radius)}
        return state.replace(params=state.params | {partition.CLASSIFIER: head}), loss

    return epoch_then_project


def _optimizer(recipe):
    return training.make_optimizer(momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _gsam(recipe):
    return sharpness.make_gsam_gradient(
        rho=recipe.rho, alpha=recipe.alpha, adaptive=recipe.adaptive
    )


def _init_key(key):
    return jax.random.fold_in(key, 0)


def _epochs_key(key):
    return jax.random.fold_in(key, 1)
