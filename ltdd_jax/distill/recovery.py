"""Recovery: images that trained observers recognise and whose statistics are the real images'.

SRe2L (Yin et al., NeurIPS 2023), EDC (Shao et al., NeurIPS 2024) and RLDD (Cui et al., AAAI 2026,
arXiv 2511.18858). They optimise one batch of images after the other; they differ in what the images
start from, which statistics are followed (`statistics_loss`) and the augmentation (`presets`).

The images are optimised as network input, which is what every augmentation of this package acts on,
and after each step brought back to pixels in [0, 1] through the preprocessing; without whitening
that is the papers' clipping. The last step of a batch rounds the pixels to 8 bits, as the papers'
picture files do (theirs are JPEG, which changes them further).

Where the released programs of EDC and RLDD differ from the papers the papers are followed: averages
over the training images are divided by their number, not by that of the balanced set; means and
variances of patches do not change places; one preprocessing serves observers, teachers and
students; RLDD's class statistics replace the running ones in the norms too.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltdd_jax import losses, training
from ltdd_jax.data import crops, normalize
from ltdd_jax.distill import confident_crops, initialize, method, statistics, statistics_loss
from ltdd_jax.distill import observers as observing
from ltdd_jax.types import SyntheticSet

_LIMITS = {"loss": 1e6, "image_max": 1e6}
_REMEDY = (
    "lower --config.recovery.image_lr or --config.recovery.statistics_weight, or train the "
    "observers longer"
)
_FORWARDS = 3.0  # passes of a step, in forward passes
_COPIES = 3  # of the images: before and after a step, and moments of Adam


@flax.struct.dataclass
class RecoveryState:
    """Everything that recovery changes.

    Attributes:
      step: int32 scalar, iterations done.
      synthetic: the images; their labels stay.
      opt_state: of the batch at work.
      base_key: typed key; iteration i uses fold_in(base_key, i).
      averages: of each observer, layer -> running averages of the batches' statistics.
    """

    step: jax.Array
    synthetic: SyntheticSet
    opt_state: optax.OptState
    base_key: jax.Array
    averages: tuple[dict[str, statistics.Moments], ...]


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds a method of the family.

    Args:
      task: data, observers and, for crops, teachers.
      ipc: images per class.
      **settings: the fields of the config's section `recovery`.
    """
    labels = np.repeat(np.arange(task.num_classes, dtype=np.int32), ipc)
    batches = cut_batches(task.num_classes, ipc, settings["batch_order"], settings["batch_size"])
    steps = settings["num_steps"]
    rates = optax.cosine_decay_schedule(settings["image_lr"], steps)
    tx = training.allow_counts(
        optax.adam(rates, b1=settings["first_decay"], b2=settings["second_decay"])
    )
    observers = observing.make_observers(task.networks("observer"), settings["layers"])
    starts_from_crops = settings["initial_images"] == "crops"
    return method.Method(
        start=lambda: make_start(task, ipc, settings),
        init=lambda key, synthetic: init_state(key, synthetic, tx, observers, batches.shape[1]),
        step=make_step(observers, batches, labels, task.num_classes, tx, settings),
        result=lambda state: state.synthetic,
        read=lambda iteration: {},
        labels=labels,
        num_iterations=len(batches) * steps,
        teachers=("teacher", "observer") if starts_from_crops else ("observer",),
        constants=lambda: observing.make_constants(task, observers, settings),
        limits=_LIMITS,
        remedy=_REMEDY,
        bytes=max(o.network.sizes.training_bytes(batches.shape[1]) for o in observers)
        + 4 * _COPIES * labels.size * math.prod(task.image_shape),
        image_copies=_COPIES,
        flops=_FORWARDS * batches.shape[1] * max(o.network.sizes.flops for o in observers),
        summary=f"{len(batches)} x {steps} steps on {batches.shape[1]} images, from "
        f"{settings['initial_images']}",
    )


def cut_batches(num_classes: int, ipc: int, order: str, batch_size: int) -> np.ndarray:
    """The rows of the set that are optimised together.

    Args:
      num_classes: K.
      ipc: images per class.
      order: "class_major": one class after the other (EDC, RLDD); "one_per_class": a batch has one
        image of each class, or of a part of the classes (SRe2L).
      batch_size: at most.

    Returns:
      int32 [n, B]. All batches have one shape; where the number of rows does not allow that, the
      last begins earlier, and the rows in two batches are optimised twice.
    """
    rows = np.arange(num_classes * ipc, dtype=np.int32)
    runs = rows.reshape(num_classes, ipc).T if order == "one_per_class" else rows[None]
    count = -(-runs.shape[1] // batch_size)
    size = -(-runs.shape[1] // count)
    begins = np.minimum(np.arange(count) * size, runs.shape[1] - size)
    return runs[:, begins[:, None] + np.arange(size)].reshape(-1, size)


def make_start(task: method.Task, ipc: int, settings: Mapping[str, Any]) -> SyntheticSet:
    """The set before the first step: noise, real images or confident crops; hard labels."""
    order_key, noise_key = jax.random.split(task.stream("initialize"))
    labels = np.repeat(np.arange(task.num_classes), ipc)
    kind = settings["initial_images"]
    if kind == "crops":
        names = ("images_per_class", "crops_per_image", "min_area", "max_area")
        chosen = {name: settings[name] for name in names}
        images = confident_crops.choose_images(task, ipc, **chosen)
    else:
        rows = np.full(len(labels), initialize.NOISE)
        if kind == "real":
            of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
            rows = initialize.select_real(initialize.permute_classes(order_key, of_class), ipc)
        images = initialize.fill_images(noise_key, rows, task.images)
    return SyntheticSet(
        images=jnp.asarray(images),
        label_logits=jnp.asarray(losses.hard_label_logits(labels, task.num_classes)),
        step_size=jnp.float32(settings["step_size"]),
    )


def init_state(
    key: jax.Array,
    synthetic: SyntheticSet,
    tx: optax.GradientTransformation,
    observers: tuple[observing.Observer, ...],
    batch_size: int,
) -> RecoveryState:
    """State before the first step, all averages 0; `key` becomes the base key."""

    batch = synthetic.images[:batch_size]

    def measure(observer):
        params = observer.network.init(jax.random.key(0))
        _, inputs = observer.observe(params, jnp.zeros(batch.shape, batch.dtype))
        return statistics.measure_layers(inputs, observer.with_patches)

    shapes = tuple(jax.eval_shape(functools.partial(measure, one)) for one in observers)
    return RecoveryState(
        step=jnp.zeros((), jnp.int32),
        synthetic=synthetic,
        opt_state=tx.init(batch),
        base_key=key,
        averages=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
    )


def make_step(
    observers: tuple[observing.Observer, ...],
    batches: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    tx: optax.GradientTransformation,
    settings: Mapping[str, Any],
) -> Callable[..., tuple[RecoveryState, dict[str, jax.Array]]]:
    """Builds the step: one Adam update of the batch at work, under the observer whose turn it is.

    L = CE(f(aug X), y) + w Σ_l k_l r_l, with the distances r_l of `statistics_loss`.

    Args:
      observers: which take turns.
      batches: int32 [n, B], rows that are optimised together, one batch after the other.
      labels: int32 [S].
      num_classes: K.
      tx: started anew for each batch.
      settings: of the family.
    """
    num_steps = settings["num_steps"]

    def step(state, inputs, *, params, targets, preprocessing):
        del inputs  # nothing is read for a step
        batch, place = jnp.divmod(state.step, num_steps)
        rows = jnp.asarray(batches)[jnp.minimum(batch, len(batches) - 1)]
        key = jax.random.fold_in(state.base_key, state.step)
        before = state.synthetic.images[rows]
        own = jnp.asarray(labels)[rows]

        def descend(index, averages):
            objective = make_objective(observers[index], num_classes, settings)
            (_, (metrics, moved)), gradient = jax.value_and_grad(objective, has_aux=True)(
                before, key, own, params[index], targets[index], averages[index]
            )
            return metrics, gradient, (*averages[:index], moved, *averages[index + 1 :])

        metrics, gradient, averages = jax.lax.switch(
            state.step % len(observers),
            [functools.partial(descend, index) for index in range(len(observers))],
            state.averages,
        )
        opt_state = jax.tree.map(
            lambda new, old: jnp.where(place == 0, new, old), tx.init(before), state.opt_state
        )
        updates, opt_state = tx.update(gradient, opt_state)
        after = normalize.project(preprocessing, before + updates, place == num_steps - 1)
        images = state.synthetic.images.at[rows].set(after)
        state = state.replace(
            step=state.step + 1,
            synthetic=state.synthetic.replace(images=images),
            opt_state=opt_state,
            averages=averages,
        )
        return state, {**metrics, "image_max": jnp.abs(after).max()}

    return step


def make_objective(
    observer: observing.Observer, num_classes: int, settings: Mapping[str, Any]
) -> Callable:
    """Builds the loss of one batch under one observer.

    It is called with (images, key, labels, params, targets, averages) and returns (loss, (metrics,
    new averages)).
    """
    augment = make_augment(settings)

    def objective(images, key, labels, params, targets, averages):
        logits, inputs = observer.observe(params, augment(key, images))
        cross_entropy = losses.cross_entropy(logits, labels).mean()
        found = statistics.measure_layers(inputs, observer.with_patches)
        averages, found = statistics_loss.update_averages(averages, found, settings["ema"])
        values = statistics_loss.measure_layers(
            found,
            targets,
            jax.nn.one_hot(labels, num_classes).mean(axis=0),
            class_weight=settings["class_weight"],
            mixture=settings["variances"] == "mixture",
        )
        distance = statistics_loss.join_layers(
            values, observer.layers[0], settings["first_layer_weight"]
        )
        loss = cross_entropy + settings["statistics_weight"] * distance
        metrics = {"loss": loss, "cross_entropy": cross_entropy, "statistics": distance}
        return loss, (metrics, averages)

    return objective


def make_augment(settings: Mapping[str, Any]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`augment(key, images)`: one draw for the whole batch, as published.

    "crop": one resized crop and flip (EDC, RLDD); "roll": all images are moved around by up to
    `jitter` pixels down and to the right (SRe2L).
    """

    def crop(key, images):
        boxes = crops.draw_boxes(
            key,
            1,
            images.shape[1:3],
            area=(settings["view_min_area"], 1.0),
            flip=settings["flip"],
        )
        every = jax.tree.map(lambda x: jnp.broadcast_to(x, len(images)), boxes)
        return crops.resize_crop(images, every)

    def roll(key, images):
        shift = jax.random.randint(key, (2,), 0, settings["jitter"] + 1)
        return jnp.roll(images, shift, axis=(1, 2))

    return {"crop": crop, "roll": roll}[settings["augmentation"]]
