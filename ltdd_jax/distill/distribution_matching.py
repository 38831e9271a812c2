"""Distribution matching: DM (Zhao and Bilen, WACV 2023); its section also holds IDM (`idm`).

The mean embedding of a class's synthetic images follows that of its real ones, under a new random
network in every iteration, which is never trained. Every class gives equally many real images.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.distill import idm, image_steps, method, real_batches

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
    together = num_classes if task.network.has_statistics else 1  # classes that are held at once
    return method.Method(
        start=lambda: image_steps.make_start(
            task, ipc, settings["initial_images"], settings["step_size"]
        ),
        init=lambda key, synthetic: image_steps.ImageState(
            **image_steps.init_fields(key, synthetic)
        ),
        step=make_step(task, settings),
        result=lambda state: state.synthetic,
        read=read,
        labels=np.repeat(np.arange(num_classes, dtype=np.int32), ipc),
        num_iterations=settings["num_iterations"],
        constants=lambda: {"real": task.images},
        limits=image_steps.LIMITS,
        remedy=_REMEDY,
        bytes=image_steps.estimate_bytes(task, together * max(batch, ipc), ipc),
        flops=float(num_classes * (batch + 3 * ipc) * sizes.flops),
        summary=f"{batch} real images of each class under a new random network",
    )


def make_step(task: method.Task, settings: dict[str, Any]):
    """`step(state, Batch [K, B], real) -> (state, metrics)`."""
    follow = match_together if task.network.has_statistics else match_in_turn

    def step(state, batch, *, real):
        network_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
        params = task.network.init(network_key)
        draws = jax.random.split(key, task.num_classes)
        value, gradient = follow(task, params, state.synthetic.images, real, batch, draws)
        synthetic, velocity = image_steps.descend(
            state, gradient, rate=settings["image_lr"], momentum=settings["image_momentum"]
        )
        metrics = image_steps.measure(value, synthetic.images)
        return state.replace(step=state.step + 1, synthetic=synthetic, velocity=velocity), metrics

    return step


def match_in_turn(task: method.Task, params, images, real, batch, keys):
    """Σ_c ‖mean e(A R_c) - mean e(A X_c)‖² and its gradient, one class after the other.

    Args:
      task: network and augmentation.
      params: of the network.
      images: synthetic, [K·ipc, H, W, C], class-major.
      real: [N, H, W, C].
      batch: Batch [K, B], rows of `real`.
      keys: [K], of the augmentation.

    Returns:
      The sum, and the gradient [K·ipc, H, W, C].
    """

    def class_loss(own, label, rows, key):
        seen = task.augment_siamese(key, real[rows.indices])
        target = rows.weights @ task.network.embed(params, seen)
        made = task.augment_siamese(jax.random.clone(key), own)
        return jnp.square(target - task.network.embed(params, made).mean(axis=0)).sum()

    return image_steps.map_classes(class_loss, images, batch, keys)


def match_together(task: method.Task, params, images, real, batch, keys):
    """`match_in_turn` for a network with batch norms, where all classes pass it at once.

    As in the published program the norms see the real images as one batch and the synthetic ones
    as another: a fresh network has no running statistics yet, and those of a single class would
    take away the mean that is matched. Every real image that is there counts the same in a norm,
    also where a class has fewer.
    """
    num_classes, shape = task.num_classes, images.shape[1:]

    def augment(x):
        return task.augment_siamese(*x)

    rows, present = batch.indices.reshape(-1), (batch.weights > 0).astype(jnp.float32).reshape(-1)
    seen = real[rows].reshape(*batch.indices.shape, *shape)
    seen = jax.lax.map(augment, (keys, seen)).reshape(-1, *shape)
    features, _ = task.network.train_embed(params, seen, present / present.sum())
    features = features.reshape(*batch.weights.shape, -1)
    target = (batch.weights[:, :, None] * features).sum(axis=1)

    def loss(images):
        own = images.reshape(num_classes, -1, *shape)
        made = jax.lax.map(augment, (jax.random.clone(keys), own))
        features, _ = task.network.train_embed(params, made.reshape(-1, *shape))
        means = features.reshape(num_classes, -1, features.shape[-1]).mean(axis=1)
        return jnp.square(target - means).sum()

    return jax.value_and_grad(loss)(images)
