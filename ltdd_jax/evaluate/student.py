"""Networks that learn from a teacher's labels of augmented views: block (ii) of the evaluation.

One protocol for all sets: random resized crop, flip and cutmix, and for every view the teacher's
answer to that very picture, either asked live in the same compiled step or stored before. It is the
protocol of the uni-level methods (RDED, CVPR 2024; RLDD, AAAI 2026), without RandAugment.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltdd_jax import losses, training
from ltdd_jax.data import batches as batching
from ltdd_jax.data import views
from ltdd_jax.evaluate.train import Evaluator
from ltdd_jax.nets import Network, partition
from ltdd_jax.types import Array, Params

_DROPS = (0.8, 0.9, 0.95)  # shares of the epochs after which "steps" halves the rate
_ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a student is trained; the defaults are the protocol we measured.

    Attributes:
      num_epochs: passes over the set, each over a view of its own.
      batch_size: images per step, the short batch is kept.
      optimizer: "sgd" or "adamw".
      schedule: "cosine" to 0, or "steps": half the rate after 80, 90 and 95 % of the epochs.
      momentum: of SGD.
      weight_decay: on what `decay_vectors` says; with adamw apart from the gradient.
      decay_vectors: whether biases and the scales of norms decay too.
      loss: "kl" with `temperature`, or "mse" of the logits.
      temperature: of "kl".
      hard_weight: of the cross-entropy with the class that the unmixed image stands for, added to
        the loss.
      ema: decay per step of the average of the parameters that is tested; 0 tests the last ones.
      recipe: of the views.
    """

    num_epochs: int = 500
    batch_size: int = 25
    optimizer: str = "sgd"
    schedule: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_vectors: bool = True
    loss: str = "kl"
    temperature: float = 4.0
    hard_weight: float = 0.0
    ema: float = 0.0
    recipe: views.Recipe = dataclasses.field(default_factory=views.Recipe)


@flax.struct.dataclass
class StudentState:
    """State of one student; with a leading axis once vmapped.

    Attributes:
      train: parameters and optimiser.
      averaged: their exponential average; None where the protocol has none.
    """

    train: training.TrainState
    averaged: Params | None

    @property
    def params(self) -> Params:
        """Those that are tested."""
        return self.train.params if self.averaged is None else self.averaged


@flax.struct.dataclass
class Lesson:
    """What one student learns from; with a leading axis once vmapped.

    Attributes:
      images: float32 [S, H, W, C].
      labels: int32 [S], the classes that the images stand for.
      key: uint32 [2], data of the key of the stored views; None where the teacher is live.
      logits: floating [V, S, K], its labels of the stored views, or None likewise.
    """

    images: Array
    labels: Array
    key: Array | None = None
    logits: Array | None = None


@flax.struct.dataclass
class Teaching:
    """What all students share; without teachers where views are stored.

    Attributes:
      params: of each teacher.
      shift: float32 [K], added to their mean logits (calibration).
    """

    params: tuple[Params, ...]
    shift: Array


def learning_rates(protocol: Protocol, rate: float) -> np.ndarray:
    """The rate of every epoch, float32 [num_epochs]."""
    epochs = np.arange(protocol.num_epochs)
    if protocol.schedule == "cosine":
        factors = (1 + np.cos(np.pi * epochs / protocol.num_epochs)) / 2
    else:
        drops = np.array(_DROPS) * protocol.num_epochs
        factors = 0.5 ** (epochs[:, None] >= drops).sum(axis=1)
    return (rate * factors).astype(np.float32)


def measure_loss(protocol: Protocol, logits, targets, labels):
    """Loss of each row.

    Args:
      protocol: which loss.
      logits: [B, K], of the student.
      targets: [B, K], logits of the teacher on the same pictures.
      labels: int32 [B], of the unmixed images.

    Returns:
      [B].
    """
    if protocol.loss == "mse":
        rows = jnp.square(logits - targets).mean(axis=-1)
    else:
        rows = losses.tempered_divergence(logits, targets, protocol.temperature)
    if protocol.hard_weight:
        rows += protocol.hard_weight * losses.cross_entropy(logits, labels)
    return rows


def ask(teachers: Sequence[Network], params: Sequence[Params], images):
    """Mean logits [B, K] of some trained networks; at least one."""
    answers = [t.apply(p, images) for t, p in zip(teachers, params, strict=True)]
    return sum(answers[1:], answers[0]) / len(answers)


def make_student(
    network: Network,
    teachers: Sequence[Network],
    protocol: Protocol,
    *,
    num_rows: int,
    num_views: int = 0,
    lanes: int | None = None,
    spread: Callable = lambda function, in_axes: function,
) -> Evaluator:
    """Builds the functions over E students; data = (Lesson with a leading axis E, Teaching).

    Args:
      network: of the students, built for the data.
      teachers: networks whose mean logits are learnt from; not used where views are stored.
      protocol: how they learn.
      num_rows: S.
      num_views: V of the stored views, which come round in turn; 0 asks the teachers live.
      lanes: students trained at once, see `training.vectorize`.
      spread: (function over E networks, in_axes) -> the same function, over several devices.
    """
    tx = _make_optimizer(protocol)

    def init(key):
        params = network.init(jax.random.fold_in(key, 0))
        train = training.init_train_state(params, tx)
        return StudentState(train=train, averaged=params if protocol.ema else None)

    run_epoch = _make_epoch(network, teachers, protocol, tx, num_rows, num_views)

    def run_epochs(key, epochs, state, lesson, teaching, rates):
        def body(state, inputs):
            epoch, rate = inputs
            return run_epoch(key, epoch, state, lesson, teaching, rate)

        return jax.lax.scan(body, state, (epochs, rates))

    def predict(state, images):
        return jnp.argmax(network.apply(state.params, images), axis=-1).astype(jnp.int32)

    axes = (0, None, 0, 0, None, 0)
    train_all = spread(training.vectorize(run_epochs, axes, lanes), axes)
    return Evaluator(
        # In turn: random numbers for many at once take the compiler twice as long.
        init=training.vectorize(init, (0,), 1),
        run_epochs=lambda keys, epochs, states, data, rates: train_all(
            keys, epochs, states, *data, rates
        ),
        predict=spread(jax.vmap(predict, in_axes=(0, None)), (0, None)),
    )


def _make_epoch(network, teachers, protocol, tx, num_rows, num_views):
    """(key, epoch, state, lesson, teaching, rate) -> (state, mean loss), for one student."""

    @jax.custom_batching.sequential_vmap  # many sorts side by side take the compiler twice as long
    def draw_batches(key):
        return batching.shuffle_epoch(key, num_rows, protocol.batch_size)

    def run_epoch(key, epoch, state, lesson, teaching, rate):
        order_key, view_key = jax.random.split(jax.random.fold_in(key, 1))
        batches = draw_batches(jax.random.fold_in(order_key, epoch))
        view = epoch
        if num_views:
            view_key, view = jax.random.wrap_key_data(lesson.key), epoch % num_views
        size = lesson.images.shape[1:3]
        draws = jax.custom_batching.sequential_vmap(
            lambda key, view: views.draw(key, view, num_rows, size, protocol.recipe)
        )(view_key, view)

        def body(state, batch):
            images = views.take(lesson.images, draws, batch.indices)
            if num_views:
                targets = lesson.logits[view, batch.indices].astype(jnp.float32)
            else:
                targets = ask(teachers, teaching.params, images) + teaching.shift[None]

            def loss(params):
                logits, params = network.train(params, images, batch.weights)
                rows = measure_loss(protocol, logits, targets, lesson.labels[batch.indices])
                return (batch.weights * rows).sum(), params

            return _step(protocol, tx, loss, state, rate)

        state, values = jax.lax.scan(body, state, batches)
        return state, values.mean()

    return run_epoch


def _step(protocol: Protocol, tx, loss: Callable, state: StudentState, rate) -> tuple[Any, Any]:
    """One step of the optimiser, of running statistics if there are any, and of the average.

    `loss` returns its value and the parameters with the statistics after the batch; neither the
    gradient nor weight decay touches these.
    """
    train = state.train
    trained, statistics = partition.split_statistics(train.params)

    def of_trained(trained):
        return loss(partition.merge_statistics(trained, statistics))

    (value, seen), gradient = jax.value_and_grad(of_trained, has_aux=True)(trained)
    updates, opt_state = tx.update(gradient, train.opt_state, trained)
    trained = jax.tree.map(lambda p, v: p - rate * v, trained, updates)
    params = partition.merge_statistics(trained, partition.split_statistics(seen)[1])
    train = dataclasses.replace(train, step=train.step + 1, params=params, opt_state=opt_state)
    averaged = state.averaged
    if averaged is not None:
        averaged = jax.tree.map(
            lambda a, p: protocol.ema * a + (1 - protocol.ema) * p, averaged, params
        )
    return StudentState(train=train, averaged=averaged), value


def _make_optimizer(protocol: Protocol) -> optax.GradientTransformation:
    """The direction before the learning rate is applied, as `training.make_optimizer`."""
    mask = None if protocol.decay_vectors else _is_matrix
    decay = optax.add_decayed_weights(protocol.weight_decay, mask)
    if protocol.optimizer == "adamw":
        return training.allow_counts(optax.chain(optax.scale_by_adam(**_ADAM), decay))
    return optax.chain(decay, optax.trace(protocol.momentum))


def _is_matrix(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)
