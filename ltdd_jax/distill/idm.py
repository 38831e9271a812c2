"""IDM, improved distribution matching (Zhao et al., CVPR 2023).

Three changes to DM: every image holds f x f pictures, which students and the matching see enlarged
(`data.mosaic`); the networks come from a queue whose members are trained on the (long-tailed) real
images now and then; and a cross-entropy, the heavier the more accurate the network, is added.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltdd_jax import losses, training
from ltdd_jax.data import mosaic
from ltdd_jax.distill import image_steps, method, network_steps, real_batches
from ltdd_jax.types import Params

_SECTION = "distribution_matching"


@flax.struct.dataclass
class Queue:
    """Networks of different ages; a new one takes the place of the oldest when it is full.

    Attributes:
      params: leaves with a leading axis Q, the capacity.
      opt_state: momentum of each.
      appended: int32 scalar, networks put in so far; member i stands at place i mod Q, so that the
        first min(appended, Q) places are taken.
      hits: float32 [Q], training images that were classified correctly.
      seen: float32 [Q], training images that were counted.
    """

    params: Params
    opt_state: optax.OptState
    appended: jax.Array
    hits: jax.Array
    seen: jax.Array

    @property
    def capacity(self) -> int:
        """Q."""
        return self.hits.shape[0]

    @property
    def length(self) -> jax.Array:
        """Members that are there."""
        return jnp.minimum(self.appended, self.capacity)

    @property
    def accuracy(self) -> jax.Array:
        """float32 [Q], training accuracy in percent; 0 for one that has not been trained."""
        return 100 * self.hits / jnp.maximum(self.seen, 1)

    def get(self, place: jax.Array) -> tuple[Params, optax.OptState]:
        """Parameters and momentum of the member at `place`."""
        return jax.tree.map(lambda x: x[place], (self.params, self.opt_state))

    def put(self, place: jax.Array, params: Params, opt_state: optax.OptState) -> "Queue":
        """The queue with other parameters and momentum at `place`."""
        new = jax.tree.map(
            lambda x, y: x.at[place].set(y), (self.params, self.opt_state), (params, opt_state)
        )
        return dataclasses.replace(self, params=new[0], opt_state=new[1])

    def append(self, params: Params, opt_state: optax.OptState) -> "Queue":
        """The queue with one more network, which has no accuracy yet."""
        place = self.appended % self.capacity
        return dataclasses.replace(
            self.put(place, params, opt_state),
            appended=self.appended + 1,
            hits=self.hits.at[place].set(0),
            seen=self.seen.at[place].set(0),
        )


@flax.struct.dataclass
class State(image_steps.ImageState):
    """An `ImageState` with the networks.

    Attributes:
      queue: of the networks.
    """

    queue: Queue


@flax.struct.dataclass
class Inputs:
    """Rows of an iteration.

    Attributes:
      matched: Batch [K, B], real images of every class.
      trained: Batch [M, T, B'], natural batches of M members and T steps.
    """

    matched: Any
    trained: Any


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds IDM.

    Args:
      task: data and network.
      ipc: synthetic images per class, each of which holds partition x partition pictures.
      **settings: the fields of the config's section `distribution_matching`.

    Raises:
      UserError: images that cannot be cut up.
    """
    factor = settings["partition"]
    mosaic.check_sides(task.image_shape, factor, f"{_SECTION}.partition")
    tx = training.make_optimizer(
        momentum=settings["network_momentum"], weight_decay=settings["network_weight_decay"]
    )
    batch = min(settings["batch_size"], max(task.class_counts))
    rows = factor**2 * ipc
    trained = settings["trained_members"] * settings["training_steps"]
    trained *= min(settings["training_batch_size"], len(task.labels))
    sizes = task.network.sizes
    return method.Method(
        start=lambda: image_steps.make_start(
            task, ipc, settings["initial_images"], settings["step_size"], factor
        ),
        init=lambda key, synthetic: init_state(key, synthetic, task.network, tx, settings),
        step=make_step(task, ipc, tx, settings),
        result=lambda state: state.synthetic,
        read=make_reader(task, settings),
        labels=np.repeat(np.arange(task.num_classes, dtype=np.int32), ipc),
        num_iterations=settings["num_iterations"],
        constants=lambda: {"real": task.images, "labels": task.labels},
        partition=factor,
        limits=image_steps.LIMITS,
        remedy=f"lower --config.{_SECTION}.image_lr or --config.{_SECTION}.ce_weight",
        bytes=image_steps.estimate_bytes(task, max(batch, rows), ipc)
        + 2 * 4 * sizes.num_parameters * settings["queue_size"],
        flops=float((task.num_classes * (batch + 3 * rows) + 3 * trained) * sizes.flops),
        summary=f"{factor} x {factor} pictures per image, {batch} real images of each class under "
        f"one of up to {settings['queue_size']} networks",
    )


def make_reader(task: method.Task, settings: dict[str, Any]):
    """`read(iteration)` -> Inputs."""
    of_class = real_batches.list_classes(task.labels, task.num_classes)
    stream = task.stream("schedule")
    members, steps = settings["trained_members"], settings["training_steps"]

    def read(iteration):
        generator = real_batches.make_generator(stream, iteration)
        matched = real_batches.draw_of_classes(generator, of_class, settings["batch_size"])
        size = settings["training_batch_size"]
        trained = real_batches.draw_of_all(generator, len(task.labels), size, members * steps)
        shape = (members, steps, trained.indices.shape[1])
        return Inputs(matched, jax.tree.map(lambda x: x.reshape(shape), trained))

    return read


def init_state(key, synthetic, network, tx, settings) -> State:
    """The state before the first iteration, with the first random networks."""
    size = settings["queue_size"]
    key, networks_key = jax.random.split(key)
    keys = jax.random.split(networks_key, size)
    params = jax.lax.map(network.init, keys)  # the places that are free hold some network too
    queue = Queue(
        params=params,
        opt_state=jax.vmap(lambda x: network_steps.init_optimizer(tx, x))(params),
        appended=jnp.asarray(min(settings["initial_networks"], size), jnp.int32),
        hits=jnp.zeros(size),
        seen=jnp.zeros(size),
    )
    return State(**image_steps.init_fields(key, synthetic), queue=queue)


def make_step(task: method.Task, ipc: int, tx, settings: dict[str, Any]):
    """`step(state, Inputs, real, labels) -> (state, metrics)`."""
    network = task.network
    class_loss = make_class_loss(task, settings)
    train = make_training(network, tx, settings["network_lr"])

    def step(state, inputs, *, real, labels):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        queue = _renew(state, network, tx, keys[0], settings)
        drawn = jax.random.randint(keys[1], (), 0, queue.length)
        params, _ = queue.get(drawn)
        accuracy = queue.accuracy[drawn]

        def loss(own, label, batch, key):
            seen = real[batch.indices]
            return class_loss(params, accuracy, own, label, seen, batch.weights, key)

        draws = jax.random.split(keys[2], task.num_classes)
        value, images, velocity = image_steps.descend_in_turn(
            loss,
            state,
            inputs.matched,
            draws,
            rate=settings["image_lr"],
            momentum=settings["image_momentum"],
        )
        places = _choose_members(keys[3], queue, settings["trained_members"])
        for i in range(settings["trained_members"]):
            batches = jax.tree.map(lambda x, i=i: x[i], inputs.trained)
            queue = train(queue, places[i], batches, real, labels)
        synthetic = state.synthetic.replace(images=images)
        metrics = image_steps.measure(value, images) | {"network_accuracy": accuracy}
        return State(state.step + 1, synthetic, velocity, state.key, queue), metrics

    return step


def _renew(state, network, tx, key, settings):
    """The queue with a new network where one is due, and accuracies counted anew."""

    def append(queue):
        params = network.init(key)
        return queue.append(params, network_steps.init_optimizer(tx, params))

    is_due = state.step % settings["queue_interval"] == 0
    queue = jax.lax.cond(is_due, append, lambda queue: queue, state.queue)
    interval = settings["accuracy_interval"]
    if not interval:
        return queue
    keep = jnp.where(state.step % interval == 0, 0.0, 1.0)
    return queue.replace(hits=keep * queue.hits, seen=keep * queue.seen)


def _choose_members(key, queue, count):
    """Places of `count` different members; a queue with fewer gives some twice."""
    marks = jax.random.uniform(key, (queue.capacity,))
    order = jnp.argsort(jnp.where(jnp.arange(queue.capacity) < queue.length, marks, 2.0))
    return order[jnp.arange(count) % queue.length]


def make_class_loss(task: method.Task, settings: dict[str, Any]):
    """The loss of one class under one network.

    Returns:
      (params, accuracy in percent, own images [ipc, H, W, C], class, real images [B, H, W, C],
      their weights [B], key) -> ‖mean e(A R) - mean e(A expand X)‖² + ce_weight · accuracy · CE.
    """
    network, factor = task.network, settings["partition"]

    def loss(params, accuracy, own, label, real, weights, key):
        shown = mosaic.expand(own, factor)
        target = weights @ network.embed(params, task.augment_siamese(key, real))
        seen = task.augment_siamese(jax.random.clone(key), shown)
        features = network.embed(params, seen)
        distance = jnp.square(target - features.mean(axis=0)).sum()
        logits = network.classify(params, features)
        entropy = losses.cross_entropy(logits, jnp.full(len(shown), label)).mean()
        return distance + settings["ce_weight"] * accuracy * entropy

    return loss


def make_training(network, tx, rate: float):
    """(queue, place, Batch [T, B], real images, labels) -> queue after T steps of that member."""

    def train(queue, place, batches, real, labels):
        def body(carry, batch):
            targets = labels[batch.indices]
            carry, logits = network_steps.descend(
                network,
                tx,
                rate,
                carry,
                real[batch.indices],
                batch.weights,
                lambda logits: losses.cross_entropy(logits, targets),
            )
            is_hit = jnp.argmax(logits, axis=-1) == targets
            counted = batch.weights > 0
            counts = (is_hit & counted).sum(), counted.sum()
            return carry, jax.tree.map(jnp.float32, counts)

        carry, (hits, seen) = jax.lax.scan(body, queue.get(place), batches)
        queue = queue.put(place, *carry)
        return queue.replace(
            hits=queue.hits.at[place].add(hits.sum()), seen=queue.seen.at[place].add(seen.sum())
        )

    return train
