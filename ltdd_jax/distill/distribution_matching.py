"""Distribution matching: DM (Zhao and Bilen, WACV 2023); its section also holds IDM (`idm`).

The mean embedding of a class's synthetic images follows that of its real ones, under a new random
network in every iteration, which is never trained. Every class gives equally many real images.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.distill import idm, image_steps, method, network_steps, real_batches

_REMEDY = "lower --config.distribution_matching.image_lr"


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds DM, or IDM where the networks come from a queue.

    Args:
      task: data and network.
      ipc: synthetic images per class.
      **settings: the fields of the config's section `distribution_matching`.
    """
    if settings["networks"] == "queue":
        return idm.make_method(task, ipc=ipc, **settings)
    num_classes, sizes = task.num_classes, task.network.sizes
    of_class = real_batches.list_classes(task.labels, num_classes)
    stream = task.stream("schedule")

    def read(iteration):
        generator = real_batches.make_generator(stream, iteration)
        return real_batches.draw_of_classes(generator, of_class, settings["batch_size"])

    batch = min(settings["batch_size"], max(task.class_counts))
    return method.Method(
        start=lambda: image_steps.make_start(
            task, ipc, settings["initial_images"], settings["step_size"]
        ),
        init=lambda key, synthetic: image_steps.ImageState(
            **image_steps.init_fields(key, synthetic)
        ),
        step=make_step(task, ipc, settings),
        result=lambda state: state.synthetic,
        read=read,
        labels=np.repeat(np.arange(num_classes, dtype=np.int32), ipc),
        num_iterations=settings["num_iterations"],
        constants=lambda: {"real": task.images},
        limits=image_steps.LIMITS,
        remedy=_REMEDY,
        bytes=image_steps.estimate_bytes(task, max(batch, ipc), ipc),
        flops=float(num_classes * (batch + 3 * ipc) * sizes.flops),
        summary=f"{batch} real images of each class under a new random network",
    )


def make_step(task: method.Task, ipc: int, settings: dict[str, Any]):
    """`step(state, Batch [K, B], real) -> (state, metrics)`."""
    weights = jnp.full((ipc,), 1 / ipc, jnp.float32)

    def step(state, batch, *, real):
        network_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
        params = task.network.init(network_key)
        params = network_steps.settle(task.network, params, real, batch.indices, batch.weights)

        def class_loss(own, label, rows, key):
            seen = task.augment_siamese(key, real[rows.indices])
            target = rows.weights @ task.network.embed(params, seen)
            made = task.augment_siamese(jax.random.clone(key), own)
            return jnp.square(target - weights @ task.network.embed(params, made)).sum()

        draws = jax.random.split(key, task.num_classes)
        value, gradient = image_steps.map_classes(class_loss, state.synthetic.images, batch, draws)
        synthetic, velocity = image_steps.descend(
            state, gradient, rate=settings["image_lr"], momentum=settings["image_momentum"]
        )
        metrics = image_steps.measure(value, synthetic.images)
        return state.replace(step=state.step + 1, synthetic=synthetic, velocity=velocity), metrics

    return step
