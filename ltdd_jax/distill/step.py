"""One outer iteration: unroll a student per phase, match, update the synthetic set."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
from ltdd_jax.data import mosaic
from ltdd_jax.distill import matching, student
from ltdd_jax.distill.state import DistillState
from ltdd_jax.nets import Network
from ltdd_jax.types import AugmentFn, Params, SyntheticSet


@dataclasses.dataclass(frozen=True)
class Phase:
    """One student and what it has to follow (arXiv 2408.14506, section 3).

    The paper has two: a representation phase (all parameters move under the class-weighted loss,
    the backbone is matched) and a classifier phase (only the classifier moves, plain loss).

    Attributes:
      name: used in the metrics.
      moved: "all" or "classifier", what the student trains.
      matched: "all", "backbone" or "classifier", what is compared with the expert.
      student_steps: inner steps T.
      batch_size: synthetic images (pictures where they hold several) per inner step; above their
        number means all.
      loss_weight: λ, factor of this phase in the outer loss.
      class_weights: w [K] of the inner loss, or None for the plain loss.
      num_shards: students that share a batch, each on its own path (docs/shards.md).
      step_size_factor: times the learned step size, α in this phase (ours; paper: 1).
    """

    name: str
    moved: str
    matched: str
    student_steps: int
    batch_size: int
    loss_weight: float
    class_weights: tuple[float, ...] | None = None
    num_shards: int = 1
    step_size_factor: float = 1.0


@flax.struct.dataclass
class ExpertPair:
    """What a phase reads of an expert.

    Attributes:
      start: all parameters of the snapshot the student starts from.
      target: the matched part of the later snapshot.
    """

    start: Params
    target: Params


def make_inner_loss(network: Network, phase: Phase, augment: AugmentFn) -> student.InnerLoss:
    """The loss of one step of the student of `phase`; `draws` are what `augment` takes first.

    With several shards the parameters have a leading axis of shards, and shard j computes the
    rows of the j-th part of the batch. The gradient with respect to its parameters is then its
    part of the gradient of the mean over the batch (docs/shards.md).
    """

    def row_losses(logits, label_logits):
        if phase.class_weights is None:
            return losses.soft_cross_entropy(logits, label_logits)
        weights = jnp.asarray(phase.class_weights, logits.dtype)
        return losses.weighted_soft_cross_entropy(logits, label_logits, weights)

    def predict(params, frozen, images):
        if phase.moved == "classifier":
            return network.classify(params, network.embed(frozen, images))
        return network.apply(params, images)

    def inner_loss(params, frozen, images, label_logits, weights, draws):
        images = augment(draws, images)
        if phase.num_shards == 1:
            logits = predict(params, frozen, images)
        else:
            rows, is_own = _share_rows(weights, phase.num_shards)
            logits = jax.vmap(predict, in_axes=(0, None, 0))(params, frozen, images[rows])
            logits, rows = logits.reshape(-1, logits.shape[-1]), rows.reshape(-1)
            weights = jnp.where(is_own.reshape(-1), weights[rows], 0)
            label_logits = label_logits[rows]
        return (weights.astype(logits.dtype) * row_losses(logits, label_logits)).sum()

    return inner_loss


def _share_rows(weights, num_shards):
    """Rows of each shard, int32 [n, ceil(B / n)], and which of them are not padding.

    The R rows of a batch with weight come first; they are cut into consecutive parts of
    ceil(R / n), so that a short batch is shared by all shards as well.
    """
    count = (weights > 0).sum()
    size = -(-count // num_shards)
    place = jnp.arange(-(-weights.shape[0] // num_shards))[None]
    rows = jnp.arange(num_shards)[:, None] * size + place
    is_own = (place < size) & (rows < count)
    return jnp.where(is_own, rows, 0), is_own


def phase_loss(
    network: Network,
    phase: Phase,
    augment: AugmentFn,
    synthetic: SyntheticSet,
    pair: ExpertPair,
    batches,
    draws,
    *,
    gradient: str,
) -> jax.Array:
    """Matching loss of one phase for given rows and augmentation draws; scalar >= 0."""
    params, frozen = pair.start, {}
    if phase.moved == "classifier":
        params = matching.select_part(pair.start, "classifier")
        frozen = matching.select_part(pair.start, "backbone")
    part = "classifier" if phase.moved == "classifier" else phase.matched
    target = matching.select_part(pair.target, part)
    step_size = phase.step_size_factor * synthetic.step_size

    def measure(final):
        start = matching.select_part(pair.start, part)
        return matching.matching_loss(matching.select_part(final, part), start, target)

    def unroll(params, step_size):
        return student.unroll(
            make_inner_loss(network, phase, augment),
            params,
            frozen,
            (synthetic.images, synthetic.label_logits),
            step_size,
            batches,
            draws,
            gradient=gradient,
        )

    if phase.num_shards == 1:
        return measure(unroll(params, step_size))
    shards = jax.tree.map(lambda x: jnp.broadcast_to(x, (phase.num_shards, *x.shape)), params)
    return _shards_loss(measure, unroll, params, shards, step_size, gradient)


def _shards_loss(measure, unroll, params, shards, step_size, gradient):
    """The loss of the mean end point; two_pass treats the shards as the released program does.

    There every device forms the direction of its own second pass from its own end point, while
    the step size learns from the mean displacement (docs/shards.md derives both).
    """

    def mean(tree):
        return jax.tree.map(lambda x: x.mean(axis=0), tree)

    if gradient != "two_pass":
        return measure(mean(unroll(shards, step_size)))
    ends = unroll(shards, jax.lax.stop_gradient(step_size))
    moved = jax.lax.stop_gradient(
        jax.tree.map(lambda p, e: (p - e) / step_size, params, mean(ends))
    )
    value = measure(jax.tree.map(lambda p, g: p - step_size * g, params, moved))
    own = jax.vmap(measure)(ends).mean()
    return value + own - jax.lax.stop_gradient(own)


def make_distill_step(
    network: Network,
    phases: Sequence[Phase],
    tx: optax.GradientTransformation,
    augment: AugmentFn,
    *,
    gradient: str = "exact",
    skip_threshold: float = 0.0,
    mean_decay: float = 0.0,
    target_labels: bool = False,
    partition: int = 1,
    num_pairs: int = 1,
    map_pairs: Callable = training.vectorize,
) -> Callable[[DistillState, Sequence[ExpertPair]], tuple[DistillState, dict[str, jax.Array]]]:
    """Builds `step(state, pairs) -> (state, metrics)`, one outer iteration.

    Args:
      network: the student.
      phases: unrolled one after the other on the same synthetic set; their losses are summed.
      tx: outer optimiser over a SyntheticSet.
      augment: (key, images) -> images, drawn once per inner step and used in both passes.
      gradient: one of `student.GRADIENTS`.
      skip_threshold: > 0 leaves the synthetic set as it is when any matching loss exceeds it
        (DATM, Guo et al., ICLR 2024); 0 is off.
      mean_decay: d of the running mean of the images, E <- d E + (1 - d) X (FTD, Du et al., CVPR
        2023); 0 keeps none.
      target_labels: the labels of an iteration are the target snapshot's predictions of the
        images, without augmentation (TESLA's option); needs one phase that matches all.
      partition: f; each image holds f x f pictures, which students see as images with its label.
      num_pairs: expert pairs per phase and iteration whose gradients are averaged; the paper
        has 1.
      map_pairs: (function, in_axes) -> function over a leading axis of pairs; replace it to
        spread the pairs over devices.

    Returns:
      A pure function; `pairs` has one ExpertPair per phase, with a leading axis of `num_pairs`
      unless that is 1. The metrics are float32 scalars.
    """

    objective = _make_objective(network, phases, augment, gradient, target_labels, partition)
    gradient_fn = jax.value_and_grad(objective, has_aux=True)

    def average_gradient(synthetic, key, pairs):
        if num_pairs == 1:
            return gradient_fn(synthetic, key, pairs)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_pairs))
        every = map_pairs(gradient_fn, (None, 0, 0))(synthetic, keys, pairs)
        return jax.tree.map(lambda x: x.mean(axis=0), every)

    def step(state, pairs):
        key = jax.random.fold_in(state.base_key, state.step)
        (total, parts), grads = average_gradient(state.synthetic, key, pairs)
        updates, opt_state = tx.update(grads, state.opt_state, state.synthetic)
        synthetic = optax.apply_updates(state.synthetic, updates)
        if skip_threshold > 0:
            keep = jnp.stack(list(parts.values())).max() <= skip_threshold
            synthetic, opt_state = jax.tree.map(
                lambda new, old: jnp.where(keep, new, old),
                (synthetic, opt_state),
                (state.synthetic, state.opt_state),
            )
        metrics = {"loss": total, **parts, **_measure(synthetic, grads)}
        state = state.replace(step=state.step + 1, synthetic=synthetic, opt_state=opt_state)
        if mean_decay > 0:
            mean = mean_decay * state.mean_images + (1 - mean_decay) * synthetic.images
            state = state.replace(mean_images=mean)
        return state, metrics

    return step


def _make_objective(network, phases, augment, gradient, target_labels, partition):
    """(synthetic set, key, one pair per phase) -> (weighted sum of losses, loss of each phase)."""

    def objective(synthetic, key, pairs):
        total, parts = 0.0, {}
        if partition > 1:
            synthetic = synthetic.replace(
                images=mosaic.expand(synthetic.images, partition),
                label_logits=mosaic.repeat_labels(synthetic.label_logits, partition),
            )
        if target_labels:
            images = jax.lax.stop_gradient(synthetic.images)
            synthetic = synthetic.replace(label_logits=network.apply(pairs[0].target, images))
        for index, (phase, pair) in enumerate(zip(phases, pairs, strict=True)):
            rows_key, draws_key = jax.random.split(jax.random.fold_in(key, index))
            batches = batching.draw_chunks(
                rows_key, synthetic.images.shape[0], phase.batch_size, phase.student_steps
            )
            draws = jax.random.split(draws_key, phase.student_steps)
            loss = phase_loss(
                network, phase, augment, synthetic, pair, batches, draws, gradient=gradient
            )
            parts[f"{phase.name}_loss"] = loss
            total = total + phase.loss_weight * loss
        return total, parts

    return objective


def _measure(synthetic, grads):
    """What is logged of a synthetic set and its gradient."""
    return {
        "step_size": synthetic.step_size,
        "image_max": jnp.abs(synthetic.images).max(),
        "image_grad_norm": optax.tree.norm(grads.images),
        "label_grad_norm": optax.tree.norm(grads.label_logits),
    }


def repeat_step(step: Callable) -> Callable:
    """Builds `block(state, pairs, active) -> (state, metrics)`: several iterations in one call.

    `pairs` and `active` (bool [n]) have a leading axis n; iterations that are not active leave
    the state as it is and report NaN, so that the last block of a run has the same shape.
    """

    def block(state, pairs, active):
        def body(state, inputs):
            pairs, is_active = inputs
            skipped = jax.tree.map(
                lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(step, state, pairs)[1]
            )
            return jax.lax.cond(is_active, step, lambda state, _: (state, skipped), state, pairs)

        return jax.lax.scan(body, state, (pairs, active))

    return block
