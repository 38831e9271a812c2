"""DREAM (Liu et al., ICCV 2023): gradient matching on representative real images, chosen again and
again by k-means; images hold f x f pictures as IDC's do (Kim et al., ICML 2022).

An iteration is one pass of the inner loop: one optimiser step per class, then the network is
trained on real images, naturally sampled. The network is new after `inner_steps` iterations; the
representative images are chosen every `cluster_interval` of them in its present embedding, inside
the compiled step, since that embedding is part of the state.

The published program works on pixels in [0, 1] and normalises them before the network. Here images
are network input, an affine map of [0, 1] for every channel (`normalize.find_range`): the rate is
that of the pixels, and images are kept in that range. With whitening the range is that of the real
images, as there is none of its own.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses, training
from ltdd_jax.data import augment as augmentation
from ltdd_jax.data import cutmix, mosaic, streamed
from ltdd_jax.distill import (
    clusters,
    gradient_distance,
    image_steps,
    method,
    network_steps,
    real_batches,
)
from ltdd_jax.types import SyntheticSet

_SECOND_ORDER = 9  # a gradient through a gradient, in forward passes
_BLOCK = 256  # images embedded at once


@flax.struct.dataclass
class State(image_steps.ImageState):
    """An `ImageState` with the network, and the real images that stand for their classes.

    The velocity is that of pixels in [0, 1].

    Attributes:
      network: `training.TrainState`.
      queries: int32 [K, k], rows of the representative images.
    """

    network: training.TrainState
    queries: jax.Array


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds DREAM.

    Args:
      task: data and network.
      ipc: synthetic images per class, each of which holds partition x partition pictures.
      **settings: the fields of the config's section `dream`.

    Raises:
      UserError: images that cannot be cut up.
    """
    factor = settings["partition"]
    mosaic.check_sides(task.image_shape, factor, "dream.partition")
    num_classes, sizes = task.num_classes, task.network.sizes
    stream, num_rows = task.stream("schedule"), len(task.labels)
    tx = training.make_optimizer(
        momentum=settings["network_momentum"], weight_decay=settings["network_weight_decay"]
    )
    num_queries = min(settings["num_clusters"], max(task.class_counts))
    num_batches = -(-settings["training_images"] // settings["training_batch_size"])

    def init(key, synthetic):
        key, network_key = jax.random.split(key)
        return State(
            **image_steps.init_fields(key, synthetic),
            network=training.init_train_state(task.network.init(network_key), tx),
            queries=jnp.zeros((num_classes, num_queries), jnp.int32),
        )

    def read(iteration):
        generator = real_batches.make_generator(stream, iteration)
        return real_batches.cut_pass(
            generator, num_rows, settings["training_batch_size"], num_batches
        )

    decoded = min(factor**2 * ipc, settings["decoded_batch_size"])
    clustered = num_rows / settings["cluster_interval"]
    passes = num_classes * (3 * num_queries + _SECOND_ORDER * decoded)
    passes += 3 * min(settings["training_images"], num_rows) + clustered
    return method.Method(
        start=lambda: make_start(task, ipc, settings),
        init=init,
        step=make_step(task, ipc, tx, settings),
        result=lambda state: state.synthetic,
        read=read,
        labels=np.repeat(np.arange(num_classes, dtype=np.int32), ipc),
        num_iterations=settings["num_networks"] * settings["inner_steps"],
        constants=lambda: {"real": task.images, "labels": task.labels},
        partition=factor,
        limits=image_steps.LIMITS,
        remedy="lower --config.dream.image_lr or --config.dream.network_lr",
        bytes=image_steps.estimate_bytes(task, max(num_queries, 2 * decoded), ipc),
        flops=float(passes * sizes.flops),
        summary=f"{factor} x {factor} pictures per image, {num_queries} representative images of "
        f"each class, {settings['num_networks']} networks",
    )


def make_start(task: method.Task, ipc: int, settings: dict[str, Any]) -> SyntheticSet:
    """The set before the first iteration: in every cell the real image nearest to a centre.

    Centres are those of the class under a random network; a class with fewer images than cells
    repeats them cyclically.
    """
    factor = settings["partition"]
    network_key, key = jax.random.split(task.stream("initialize"))
    cells = factor**2 * ipc
    choose = jax.jit(make_chooser(task, cells, settings["cluster_steps"]))
    real = streamed.for_programs(task.images)
    nearest = np.asarray(choose(key, task.network.init(network_key), real))
    counts = np.minimum(task.class_counts, cells)
    chosen = [np.resize(rows[:count], cells) for rows, count in zip(nearest, counts, strict=True)]
    # Class-major rows of images, cell-major lists of cells.
    rows = np.stack(chosen).reshape(task.num_classes, ipc, -1).transpose(2, 0, 1).reshape(-1)
    images = mosaic.shrink(task.images[rows], factor, "nearest")
    labels = np.repeat(np.arange(task.num_classes), ipc)
    return image_steps.make_hard_set(
        np.asarray(mosaic.assemble(images, factor)),
        labels,
        task.num_classes,
        settings["step_size"],
    )


def make_chooser(task: method.Task, count: int, max_steps: int):
    """(key, params, real images [N, H, W, C]) -> int32 [K, k], representative rows per class.

    k-means of the class's embeddings, and the real image nearest to each centre. A class of
    N_c < k images has its own images in the first N_c columns.
    """
    rows = real_batches.pad(real_batches.list_classes(task.labels, task.num_classes))
    size = min(_BLOCK, len(task.labels))
    padded = np.arange(-(-len(task.labels) // size) * size, dtype=np.int32) % len(task.labels)
    blocks = padded.reshape(-1, size)

    def choose(key, params, real):
        features = jax.lax.map(lambda block: task.network.embed(params, real[block]), blocks)
        features = features.reshape(-1, features.shape[-1])

        def of_class(inputs):
            key, rows, present = inputs
            points = features[rows]
            centres = clusters.find_centres(key, points, present, count, max_steps)
            return rows[clusters.find_nearest(centres, points, present)]

        keys = jax.random.split(key, task.num_classes)
        return jax.lax.map(of_class, (keys, jnp.asarray(rows.indices), rows.weights > 0))

    return choose


def make_step(task: method.Task, ipc: int, tx, settings: dict[str, Any]):
    """`step(state, Batch [n, B], real, labels) -> (state, metrics)`."""
    num_queries = min(settings["num_clusters"], max(task.class_counts))
    choose = make_chooser(task, num_queries, settings["cluster_steps"])
    class_loss = make_class_loss(task, ipc, settings)
    train = make_training(task.network, tx, settings)
    shares = real_batches.pad([np.zeros(min(num_queries, n)) for n in task.class_counts]).weights
    low, high = (jnp.asarray(x)[None, None, None] for x in task.input_range)
    width = high - low

    def step(state, batches, *, real, labels):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        place = state.step % settings["inner_steps"]
        network = jax.lax.cond(
            place == 0,
            lambda: training.init_train_state(task.network.init(keys[0]), tx),
            lambda: state.network,
        )
        queries = jax.lax.cond(
            place % settings["cluster_interval"] == 0,
            lambda: choose(keys[1], network.params, real),
            lambda: state.queries,
        )

        def loss(pixels, label, rows, weights, key):
            return class_loss(network.params, low + width * pixels, label, real[rows], weights, key)

        images = (state.synthetic.images - low) / width
        # As published, once for every network and not after its inner steps.
        images = jnp.where(place == 0, jnp.clip(images, 0, 1), images)
        in_pixels = state.replace(synthetic=state.synthetic.replace(images=images))
        value, pixels, velocity = image_steps.descend_in_turn(
            loss,
            in_pixels,
            queries,
            jnp.asarray(shares),
            jax.random.split(keys[2], task.num_classes),
            rate=settings["image_lr"],
            momentum=settings["image_momentum"],
        )
        synthetic = state.synthetic.replace(images=low + width * pixels)
        network = train(keys[3], network, batches, real, labels)
        metrics = image_steps.measure(value, synthetic.images)
        return State(state.step + 1, synthetic, velocity, state.key, network, queries), metrics

    return step


def make_class_loss(task: method.Task, ipc: int, settings: dict[str, Any]):
    """The loss of one class under one network.

    Returns:
      (params, own images [ipc, H, W, C], class, real images [k, H, W, C], their weights [k], key)
      -> Σ over convolutions of ‖∇ CE(A Q) - ∇ CE(A expand X)‖².
    """
    network, factor = task.network, settings["partition"]
    augment = augmentation.make_augment(
        settings["augment_one"], always=settings["augment_always"], siamese=True
    )
    decoded = factor**2 * ipc
    shown_size = min(decoded, settings["decoded_batch_size"])

    def gradient(params, images, label, weights):
        labels = jnp.full(len(images), label)

        def loss(params):
            return weights @ losses.cross_entropy(network.apply(params, images), labels)

        return jax.grad(loss)(params)

    def loss(params, own, label, real, weights, key):
        rows_key, key = jax.random.split(key)
        shown = mosaic.expand(own, factor)
        if shown_size < decoded:
            shown = shown[jax.random.permutation(rows_key, decoded)[:shown_size]]
        target = gradient(params, augment(key, real), label, weights)
        shares = jnp.full((shown_size,), 1 / shown_size, jnp.float32)
        made = gradient(params, augment(jax.random.clone(key), shown), label, shares)
        return gradient_distance.convolution_distance(jax.lax.stop_gradient(target), made)

    return loss


def make_training(network, tx, settings: dict[str, Any]):
    """(key, TrainState, Batch [n, B], real images, labels) -> TrainState after n cutmix steps."""
    chance, rate = settings["cutmix_chance"], settings["network_lr"]

    def train(key, state, batches, real, labels):
        def body(carry, inputs):
            key, batch = inputs
            images, partners, own = cutmix.cutmix(key, real[batch.indices], chance)
            targets = labels[batch.indices]

            def measure(logits):
                entropy = own * losses.cross_entropy(logits, targets)
                return entropy + (1 - own) * losses.cross_entropy(logits, targets[partners])

            return network_steps.descend(network, tx, rate, carry, images, batch.weights, measure)

        keys = jax.random.split(key, len(batches.indices))
        carry, _ = jax.lax.scan(body, (state.params, state.opt_state), (keys, batches))
        count = len(batches.indices)
        return training.TrainState(step=state.step + count, params=carry[0], opt_state=carry[1])

    return train
