"""Gradient matching: DC (Zhao et al., ICLR 2021) and DSA (Zhao and Bilen, ICML 2021).

The gradient of a network on synthetic images of a class follows that on real ones. Networks are
trained on the synthetic set only, and every class gives equally many real images, so that the
long tail never enters. One iteration is one step of the images; the network is new after
`image_steps` of them and is trained in between.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
from ltdd_jax.distill import (
    gradient_distance,
    image_steps,
    method,
    network_steps,
    real_batches,
)
from ltdd_jax.types import Params

_SECOND_ORDER = 9  # a gradient through a gradient, in forward passes
_REMEDY = "lower --config.gradient_matching.image_lr"


@flax.struct.dataclass
class State(image_steps.ImageState):
    """An `ImageState` with the network that is matched.

    Attributes:
      params: of the network; drawn anew when a new one is due, whatever stands here.
    """

    params: Params


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds DC or DSA.

    Args:
      task: data and network.
      ipc: synthetic images per class.
      **settings: the fields of the config's section `gradient_matching`.
    """
    num_classes, sizes = task.num_classes, task.network.sizes
    of_class = real_batches.list_classes(task.labels, num_classes)
    stream = task.stream("schedule")

    def init(key, synthetic):
        key, network_key = jax.random.split(key)
        params = task.network.init(network_key)
        return State(**image_steps.init_fields(key, synthetic), params=params)

    def read(iteration):
        generator = real_batches.make_generator(stream, iteration)
        return real_batches.draw_of_classes(generator, of_class, settings["batch_size"])

    outer, inner = settings["image_steps"], settings["training_epochs"]
    batch = min(settings["batch_size"], max(task.class_counts))
    trained = _share_trained(outer) * inner * ipc
    passes = _SECOND_ORDER * ipc + 3 * (batch + trained)
    return method.Method(
        start=lambda: image_steps.make_start(
            task, ipc, settings["initial_images"], settings["step_size"]
        ),
        init=init,
        step=make_step(task, ipc, settings),
        result=lambda state: state.synthetic,
        read=read,
        labels=np.repeat(np.arange(num_classes, dtype=np.int32), ipc),
        num_iterations=settings["num_networks"] * outer,
        constants=lambda: {"real": task.images},
        limits=image_steps.LIMITS,
        remedy=_REMEDY,
        bytes=image_steps.estimate_bytes(task, max(batch, 2 * ipc), ipc),
        flops=float(num_classes * passes * sizes.flops),
        summary=f"{settings['num_networks']} networks of {outer} image steps, {inner} epochs of "
        "training between two",
    )


def make_step(task: method.Task, ipc: int, settings: dict[str, Any]):
    """`step(state, Batch [K, B], real) -> (state, metrics)`, one step of the images."""
    augment = task.augment_siamese if settings["augmented"] else _keep
    weights = jnp.full((ipc,), 1 / ipc, jnp.float32)
    train = _make_training(task, ipc, settings)
    outer = settings["image_steps"]

    def gradient(params, images, label, weights):
        labels = jnp.full(len(images), label)

        def loss(params):
            return weights @ losses.cross_entropy(task.network.apply(params, images), labels)

        return jax.grad(loss)(params)

    def step(state, batch, *, real):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        place = state.step % outer
        params = jax.lax.cond(place == 0, lambda: task.network.init(keys[0]), lambda: state.params)
        params = network_steps.settle(task.network, params, real, batch.indices, batch.weights)

        def class_loss(own, label, rows, key):
            seen = augment(key, real[rows.indices])
            target = gradient(params, seen, label, rows.weights)
            made = gradient(params, augment(jax.random.clone(key), own), label, weights)
            return gradient_distance.cosine_distance(jax.lax.stop_gradient(target), made)

        draws = jax.random.split(keys[1], task.num_classes)
        value, moved = image_steps.map_classes(class_loss, state.synthetic.images, batch, draws)
        synthetic, velocity = image_steps.descend(
            state, moved, rate=settings["image_lr"], momentum=settings["image_momentum"]
        )
        if outer > 1:  # after the last step of a network it is of no use any more
            params = jax.lax.cond(
                place < outer - 1, lambda: train(keys[2], params, synthetic), lambda: params
            )
        metrics = image_steps.measure(value, synthetic.images)
        return State(state.step + 1, synthetic, velocity, state.key, params), metrics

    return step


def _make_training(task, ipc, settings):
    """(key, params, synthetic set) -> params after some epochs of plain SGD on the set."""
    rows, rate = ipc * task.num_classes, jnp.float32(settings["network_lr"])
    tx = training.make_optimizer(momentum=0.0, weight_decay=0.0)

    def loss(params, images, label_logits, weights):
        logits, params = task.network.train(params, images, weights)
        return weights @ losses.soft_cross_entropy(logits, label_logits), params

    def draw_batches(key, epoch):
        return batching.shuffle_epoch(key, rows, settings["training_batch_size"])

    augment = task.augment if settings["augmented"] else _keep
    run_epoch = training.make_epoch(
        loss, tx, draw_batches=draw_batches, augment=augment, has_aux=True
    )

    def train(key, params, synthetic):
        data = synthetic.images, synthetic.label_logits

        def body(state, key):
            return run_epoch(key, 0, state, {}, data, rate)  # of a key for each epoch

        start = training.init_train_state(params, tx)
        keys = jax.random.split(key, settings["training_epochs"])
        state, _ = jax.lax.scan(body, start, keys)
        return state.params

    return train


def _keep(key, images):
    return images


def _share_trained(outer):
    """Of the iterations, those that train the network afterwards."""
    return (outer - 1) / outer
