"""One iteration of kernel regression: ridge regression, its loss, and the pool of networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltdd_jax import losses
from ltdd_jax.data import augment as augmentation
from ltdd_jax.distill import method
from ltdd_jax.nets import partition
from ltdd_jax.types import Array, AugmentFn, Params, SyntheticSet

_HIGHEST = jax.lax.Precision.HIGHEST  # a rounded kernel need not be positive definite


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of iterations with numbers of its own.

    Attributes:
      num_iterations: of the stage.
      ridge: λ, in units of the kernel's mean diagonal.
      pool_size: networks of the pool that are used.
      pool_steps: training steps after which a network of the pool starts anew.
      image_lr: Adam's rate of the images at the start of the stage.
      label_lr: Adam's rate of the label logits there.
    """

    num_iterations: int
    ridge: float
    pool_size: int
    pool_steps: int
    image_lr: float
    label_lr: float


@flax.struct.dataclass
class Pool:
    """Networks in training on the synthetic set; every leaf has a leading axis of members.

    Attributes:
      params: all parameters.
      opt_state: Adam's.
      age: int32 [M], training steps since the last start; what each begins with is spread.
    """

    params: Params
    opt_state: optax.OptState
    age: jax.Array


@flax.struct.dataclass
class State:
    """State of the loop.

    Attributes:
      step: int32 scalar, iterations done.
      synthetic: what is optimised.
      moments: Adam's, of images and label logits.
      pool: the networks.
      key: typed key; iteration i uses fold_in(key, i).
    """

    step: jax.Array
    synthetic: SyntheticSet
    moments: optax.OptState
    pool: Pool
    key: jax.Array


def centre(logits):
    """Logits [..., K] less their mean over the classes, which no softmax sees."""
    return logits - logits.mean(axis=-1, keepdims=True)


def regress(features: Array, labels: Array, queries: Array, ridge: Array | float) -> jax.Array:
    """Ridge regression without intercept: K_qs (K_ss + λ tr(K_ss)/S · I)⁻¹ Y (after FRePo).

    K_ss and K_qs are inner products of features. Where there are fewer features than rows the
    equal system in the space of features is solved, which is the smaller one.

    Args:
      features: Φ, [S, F].
      labels: Y, [S, K].
      queries: [Q, F].
      ridge: λ > 0; the trace makes it independent of the scale of the features.

    Returns:
      Predictions [Q, K].
    """
    rows, width = features.shape
    dual = rows <= width
    gram = jnp.matmul(*((features, features.T) if dual else (features.T, features)),
                      precision=_HIGHEST)  # fmt: skip
    gram = gram + ridge * jnp.trace(gram) / rows * jnp.eye(len(gram), dtype=gram.dtype)
    right = labels if dual else jnp.matmul(features.T, labels, precision=_HIGHEST)
    solved = jax.scipy.linalg.solve(gram, right, assume_a="pos")
    weights = jnp.matmul(features.T, solved, precision=_HIGHEST) if dual else solved
    return jnp.matmul(queries, weights, precision=_HIGHEST)


def make_loss(
    settings: Mapping[str, Any], class_counts: Sequence[int]
) -> tuple[Callable[[Array], Array], Callable[[Array, Array, Array], Array]]:
    """The labels that are regressed, and the loss of the predictions.

    Returns:
      (label logits [S, K] -> Y [S, K]) and (predictions [B, K], targets [B, K], labels [B]) ->
      scalar. "cross_entropy" regresses the centred logits and takes the predictions for logits,
      those of the own class lowered by margin · (N_min / N_c)^(1/4), the margins of Cao et al.
      (NeurIPS 2019) with that of the rarest class as the unit: rare images are predicted too well,
      as the set has seen each of them often. "squared" regresses the probabilities less 1/K and is
      half the squared distance to the targets less 1/K, as published.
    """
    counts = np.asarray(class_counts, np.float32)
    margins = np.float32(settings["margin"]) * (counts.min() / counts) ** np.float32(0.25)

    def cross_entropy(predictions, targets, labels):
        lowered = margins[:, None] * np.eye(len(counts), dtype=np.float32)
        log_probs = jax.nn.log_softmax(predictions - jnp.asarray(lowered)[labels], axis=-1)
        return -(targets * log_probs).sum(axis=-1).mean()

    def squared(predictions, targets, labels):
        return 0.5 * jnp.square(predictions - centre(targets)).sum(axis=-1).mean()

    if settings["loss"] == "squared":
        return lambda logits: centre(jax.nn.softmax(logits, axis=-1)), squared
    return centre, cross_entropy


def make_schedule(stages: Sequence[Stage], final_share: float) -> Callable[[Array], dict[str, Any]]:
    """`numbers(step)` -> the fields of its stage by name.

    The rates fall along half a cosine to `final_share` of their value in each stage.
    """
    ends = np.cumsum([stage.num_iterations for stage in stages])

    def numbers(step):
        index = jnp.minimum((step >= ends).sum(), len(stages) - 1)
        found = {
            field.name: jnp.asarray([getattr(stage, field.name) for stage in stages])[index]
            for field in dataclasses.fields(Stage)
        }
        begin = jnp.asarray(ends)[index] - found["num_iterations"]
        done = (step - begin).astype(jnp.float32) / found["num_iterations"].astype(jnp.float32)
        done = jnp.minimum(done, 1.0)
        share = final_share + (1 - final_share) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return found | {name: found[name] * share for name in ("image_lr", "label_lr")}

    return numbers


def make_light_augment(strategy: str) -> AugmentFn:
    """(key, images) -> images: every operation of the strategy, one after the other."""
    parts = [augmentation.make_augment(name) for name in augmentation.parse_strategy(strategy)]

    def augment(key, images):
        for index, part in enumerate(parts):
            images = part(jax.random.fold_in(key, index), images)
        return images

    return augment


def make_step(
    task: method.Task,
    stages: Sequence[Stage],
    labels: np.ndarray,
    image_tx: optax.GradientTransformation,
    pool_tx: optax.GradientTransformation,
    settings: Mapping[str, Any],
) -> Callable[[State, dict[str, Array]], tuple[State, dict[str, Array]]]:
    """One iteration: a step of the set against one network of the pool, then one of that network.

    Args:
      task: network and augmentation.
      stages: in order.
      labels: int [S], class of each synthetic image.
      image_tx: turns gradients of (images, label logits) into directions; the stage has the rate.
      pool_tx: optimiser of the pool.
      settings: of the section.
    """
    numbers = make_schedule(stages, settings["final_share"])
    make_labels, measure = make_loss(settings, task.class_counts)
    lighten = make_light_augment(settings["real_augmentation"])
    train = make_pool_step(task, pool_tx, min(settings["pool_batch_size"], len(labels)))
    counts = np.asarray(task.class_counts, np.float64)
    shares = (counts / counts.max()) ** settings["rate_power"]
    pace = shares[labels].astype(np.float32)

    def step(state, inputs):
        now = numbers(state.step)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        member = jax.random.randint(keys[0], (), 0, now["pool_size"])
        params = jax.tree.map(lambda x: x[member], state.pool.params)
        queries = task.network.embed(params, lighten(keys[1], inputs["images"]))

        def loss(learned):
            images, logits = learned
            features = task.network.embed(params, task.augment(keys[2], images))
            predictions = regress(features, make_labels(logits), queries, now["ridge"])
            return measure(predictions, inputs["targets"], inputs["labels"]), predictions

        old = state.synthetic
        learned = (old.images, old.label_logits)
        (value, predictions), grad = jax.value_and_grad(loss, has_aux=True)(learned)
        (image_step, label_step), moments = image_tx.update(grad, state.moments)
        made = old.replace(
            images=old.images - now["image_lr"] * pace[:, None, None, None] * image_step,
            label_logits=old.label_logits - now["label_lr"] * pace[:, None] * label_step,
        )
        pool, pool_loss = train(keys[3], state.pool, member, made, now["pool_steps"])
        hits = jnp.argmax(predictions, axis=-1) == inputs["labels"]
        metrics = {
            "loss": value,
            "pool_loss": pool_loss,
            "ridge_accuracy": hits.astype(jnp.float32).mean(),
            "image_max": jnp.abs(made.images).max(),
        }
        return State(state.step + 1, made, moments, pool, state.key), metrics

    return step


def make_pool_step(
    task: method.Task, tx: optax.GradientTransformation, batch_size: int
) -> Callable[..., tuple[Pool, jax.Array]]:
    """`(key, pool, member, synthetic set, steps) -> (pool, loss)`: trains one member by one step.

    A member that has done `steps` of them starts anew at once, with new parameters.
    """

    def train(key, pool, member, synthetic, steps):
        rows_key, augment_key, restart_key = jax.random.split(key, 3)
        images, logits = synthetic.images, synthetic.label_logits
        if batch_size < len(images):
            rows = jax.random.choice(rows_key, len(images), (batch_size,), replace=False)
            images, logits = images[rows], logits[rows]
        images = task.augment(augment_key, images)
        params, opt_state = jax.tree.map(lambda x: x[member], (pool.params, pool.opt_state))

        def loss(params):
            predicted, seen = task.network.train(params, images)
            return losses.soft_cross_entropy(predicted, logits).mean(), seen

        (value, seen), grad = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grad, opt_state)
        age = pool.age[member] + 1

        def go_on():
            trained, _ = partition.split_statistics(optax.apply_updates(params, updates))
            _, statistics = partition.split_statistics(seen)
            return partition.merge_statistics(trained, statistics), opt_state, age

        def restart():
            params = task.network.init(restart_key)
            return params, tx.init(params), jnp.zeros((), jnp.int32)

        new = jax.lax.cond(age >= steps, restart, go_on)
        old = (pool.params, pool.opt_state, pool.age)
        return Pool(*jax.tree.map(lambda x, y: x.at[member].set(y), old, new)), value

    return train
