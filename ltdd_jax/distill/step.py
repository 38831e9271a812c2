"""One outer iteration: unroll a student per phase, match, update the synthetic set."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
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
      batch_size: synthetic images per inner step; above S means all.
      loss_weight: λ, factor of this phase in the outer loss.
      class_weights: w [K] of the inner loss, or None for the plain loss.
    """

    name: str
    moved: str
    matched: str
    student_steps: int
    batch_size: int
    loss_weight: float
    class_weights: tuple[float, ...] | None = None


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
    """The loss of one step of the student of `phase`; `draws` are what `augment` takes first."""

    def row_losses(logits, label_logits):
        if phase.class_weights is None:
            return losses.soft_cross_entropy(logits, label_logits)
        weights = jnp.asarray(phase.class_weights, logits.dtype)
        return losses.weighted_soft_cross_entropy(logits, label_logits, weights)

    def inner_loss(params, frozen, images, label_logits, weights, draws):
        images = augment(draws, images)
        if phase.moved == "classifier":
            logits = network.classify(params, network.embed(frozen, images))
        else:
            logits = network.apply(params, images)
        return (weights.astype(logits.dtype) * row_losses(logits, label_logits)).sum()

    return inner_loss


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
    final = student.unroll(
        make_inner_loss(network, phase, augment),
        params,
        frozen,
        (synthetic.images, synthetic.label_logits),
        synthetic.step_size,
        batches,
        draws,
        gradient=gradient,
    )
    part = "classifier" if phase.moved == "classifier" else phase.matched
    return matching.matching_loss(
        matching.select_part(final, part),
        matching.select_part(pair.start, part),
        matching.select_part(pair.target, part),
    )


def make_distill_step(
    network: Network,
    phases: Sequence[Phase],
    tx: optax.GradientTransformation,
    augment: AugmentFn,
    *,
    gradient: str = "exact",
    skip_threshold: float = 0.0,
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
      num_pairs: expert pairs per phase and iteration whose gradients are averaged; the paper
        has 1.
      map_pairs: (function, in_axes) -> function over a leading axis of pairs; replace it to
        spread the pairs over devices.

    Returns:
      A pure function; `pairs` has one ExpertPair per phase, with a leading axis of `num_pairs`
      unless that is 1. The metrics are float32 scalars.
    """

    objective = _make_objective(network, phases, augment, gradient)
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
        return state, metrics

    return step


def _make_objective(network, phases, augment, gradient):
    """(synthetic set, key, one pair per phase) -> (weighted sum of losses, loss of each phase)."""

    def objective(synthetic, key, pairs):
        total, parts = 0.0, {}
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
