"""Students of block (ii): steps written out in NumPy without automatic differentiation."""

import dataclasses
import functools
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ltdd_jax.data import batches, views
from ltdd_jax.evaluate import student
from tests.reference import views as oracle

SHAPE, NUM_ROWS, NUM_CLASSES, BATCH = (4, 3, 1), 5, 3, 2
NUM_FEATURES = 12


def _apply(params, images):
    found = params["classifier"]
    return images.reshape(len(images), -1) @ found["kernel"] + found["bias"][None]


def _init(key):
    kernel = 0.3 * jax.random.normal(key, (NUM_FEATURES, NUM_CLASSES))
    return {"classifier": {"kernel": kernel, "bias": jnp.zeros(NUM_CLASSES)}}


LINEAR = types.SimpleNamespace(
    init=_init, apply=_apply, train=lambda params, images, weights: (_apply(params, images), params)
)
# Asked for by its own way, so that student and teacher cannot be exchanged.
CURVED = types.SimpleNamespace(apply=lambda params, images: jnp.tanh(_apply(params, images)) * 3)

SOFT = student.Protocol(num_epochs=3, batch_size=BATCH, weight_decay=0.01)
PROTOCOLS = {
    "kl, sgd": SOFT,
    "mse, adamw": dataclasses.replace(
        SOFT, loss="mse", hard_weight=0.3, ema=0.6, optimizer="adamw", decay_vectors=False
    ),
}


def _lesson(count, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, NUM_ROWS, *SHAPE)).astype(np.float32)
    return student.Lesson(images=images, labels=np.tile(np.arange(5) % 3, (count, 1)).astype("i4"))


def _teaching(seed=7, count=2):
    generator = np.random.default_rng(seed)
    params = [
        {"classifier": {"kernel": generator.normal(size=(NUM_FEATURES, NUM_CLASSES)),
                        "bias": generator.normal(size=NUM_CLASSES)}}
        for _ in range(count)
    ]  # fmt: skip
    params = jax.tree.map(np.float32, params)
    return student.Teaching(params=tuple(params), shift=np.float32([0.5, -1.0, 0.2]))


@functools.cache
def _make(name, num_views=0, num_teachers=2):
    made = student.make_student(
        LINEAR, (CURVED,) * num_teachers, PROTOCOLS[name], num_rows=NUM_ROWS, num_views=num_views
    )
    return made, jax.jit(made.run_epochs)


def _keys(count):
    return jax.random.split(jax.random.key(2), count)


def _train(name, lesson, teaching, num_views=0, epochs=(0, 1, 2)):
    count = len(lesson.images)
    made, run = _make(name, num_views, len(teaching.params))
    rates = np.tile(student.learning_rates(PROTOCOLS[name], 0.05)[list(epochs)], (count, 1))
    start = made.init(_keys(count))
    return made, run(_keys(count), np.int32(epochs), start, (lesson, teaching), rates)


def _write_out(name, key, lesson, targets_of, view_of, epochs=(0, 1, 2)):
    """Parameters (kernel, bias), their average and the losses of one student, in float64."""
    protocol = PROTOCOLS[name]
    params = [np.asarray(x, np.float64) for x in jax.tree.leaves(_init(jax.random.fold_in(key, 0)))]
    params = params[::-1]  # kernel, bias
    slots = [[np.zeros_like(p) for p in params] for _ in range(2)]
    averaged, values, step = [p.copy() for p in params], [], 0
    order_key, view_key = jax.random.split(jax.random.fold_in(key, 1))
    for epoch in epochs:
        plan = batches.shuffle_epoch(jax.random.fold_in(order_key, epoch), NUM_ROWS, BATCH)
        view = view_of(view_key, epoch)
        rate = 0.05 * (1 + np.cos(np.pi * epoch / protocol.num_epochs)) / 2
        losses = []
        for rows, weights in zip(np.asarray(plan.indices), np.asarray(plan.weights), strict=True):
            x, targets = view[rows].reshape(BATCH, -1), targets_of(view, epoch)[rows]
            logits = x @ params[0] + params[1]
            loss, slope = _loss(protocol, logits, targets, np.asarray(lesson.labels)[rows])
            slope = slope * weights[:, None]
            losses.append((loss * weights).sum())
            step += 1
            params = _update(protocol, params, [x.T @ slope, slope.sum(0)], slots, rate, step)
            averaged = [
                protocol.ema * a + (1 - protocol.ema) * p
                for a, p in zip(averaged, params, strict=True)
            ]
        values.append(np.mean(losses))
    return params, averaged if protocol.ema else params, values


def _loss(protocol, logits, targets, labels):
    """Loss of each row and its derivative by the logits."""
    if protocol.loss == "mse":
        loss, slope = ((logits - targets) ** 2).mean(1), 2 * (logits - targets) / NUM_CLASSES
    else:
        heat = protocol.temperature
        ours, theirs = (special.softmax(x / heat, axis=1) for x in (logits, targets))
        loss = heat**2 * (theirs * np.log(theirs / ours)).sum(1)
        slope = heat * (ours - theirs)
    ours = special.softmax(logits, axis=1)
    hard = np.eye(NUM_CLASSES)[labels]
    loss = loss - protocol.hard_weight * np.log((ours * hard).sum(1))
    return loss, slope + protocol.hard_weight * (ours - hard)


def _update(protocol, params, gradients, slots, rate, step):
    found = []
    for i, (p, g) in enumerate(zip(params, gradients, strict=True)):
        decay = 0.01 * p
        if protocol.optimizer == "sgd":
            slots[0][i] = 0.9 * slots[0][i] + g + decay
            direction = slots[0][i]
        else:
            slots[0][i] = 0.9 * slots[0][i] + 0.1 * g
            slots[1][i] = 0.999 * slots[1][i] + 0.001 * g**2
            first, second = slots[0][i] / (1 - 0.9**step), slots[1][i] / (1 - 0.999**step)
            direction = first / (np.sqrt(second) + 1e-8) + (decay if p.ndim > 1 else 0)
        found.append(p - rate * direction)
    return found


def _see(lesson):
    def view_of(key, epoch):
        draws = views.draw(key, epoch, NUM_ROWS, SHAPE[:2], SOFT.recipe)
        return oracle.view(np.asarray(lesson.images, np.float64), *oracle.unpack(draws))

    return view_of


def _answer(teaching):
    """Mean logits of the teachers on a view, shifted."""

    def targets_of(view, epoch):
        answers = [
            3 * np.tanh(view.reshape(len(view), -1) @ p["classifier"]["kernel"].astype(float)
                        + p["classifier"]["bias"])
            for p in teaching.params
        ]  # fmt: skip
        return np.mean(answers, axis=0) + teaching.shift

    return targets_of


def _member(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_steps_are_those_written_out(name):
    """Breaks when the teacher is not asked on the very view, a patch, the temperature, decay,
    momentum or average is wrong, or padding of the short batch counts.
    """
    lesson, teaching = _lesson(2), _teaching()
    _, (state, losses) = _train(name, lesson, teaching)
    for i in range(2):
        one = _member(lesson, i)
        last, tested, values = _write_out(name, _keys(2)[i], one, _answer(teaching), _see(one))
        for tree, expected in ((state.train.params, last), (state.params, tested)):
            found = _member(tree, i)["classifier"]
            np.testing.assert_allclose(found["kernel"], expected[0], rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(found["bias"], expected[1], rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(losses[i], values, rtol=2e-4)


def test_stored_views_come_round_in_turn_with_their_labels():
    """Breaks when a stored label meets another view, or the live teacher is asked all the same."""
    name, key = "kl, sgd", jax.random.key(9)
    logits = np.random.default_rng(3).normal(size=(2, NUM_ROWS, NUM_CLASSES)).astype(np.float16)
    data = np.asarray(jax.random.key_data(key))
    lesson = _lesson(1).replace(key=data[None], logits=logits[None])
    _, (state, _) = _train(name, lesson, _teaching(count=0), num_views=2)
    one = _member(lesson, 0)
    expected, _, _ = _write_out(
        name, _keys(1)[0], one,
        lambda view, epoch: logits[epoch % 2].astype(float),
        lambda _, epoch: _see(one)(key, epoch % 2),
    )  # fmt: skip
    found = _member(state.params, 0)["classifier"]
    np.testing.assert_allclose(found["kernel"], expected[0], rtol=2e-4, atol=2e-5)


def test_epochs_can_be_run_in_parts():
    """Breaks when anything but the state is carried from one call to the next."""
    lesson, teaching = _lesson(2), _teaching()
    made, (whole, _) = _train("mse, adamw", lesson, teaching)
    _, run = _make("mse, adamw")
    rates = np.tile(student.learning_rates(PROTOCOLS["mse, adamw"], 0.05), (2, 1))
    state = made.init(_keys(2))
    for part in (slice(0, 1), slice(1, 3)):
        epochs = np.arange(3, dtype=np.int32)[part]
        state, _ = run(_keys(2), epochs, state, (lesson, teaching), rates[:, part])
    chex.assert_trees_all_close(state, whole, rtol=1e-5, atol=1e-6)


def test_predictions_are_of_the_average():
    """Breaks when the last parameters are tested where an average is kept."""
    made, (state, _) = _train("mse, adamw", _lesson(2), _teaching())
    images = np.random.default_rng(4).normal(size=(3000, *SHAPE)).astype(np.float32)
    found = np.asarray(jax.jit(made.predict)(state, images))
    for i in range(2):
        expected = np.argmax(_apply(_member(state.averaged, i), images), axis=1)
        np.testing.assert_array_equal(found[i], expected)
        last = np.argmax(_apply(_member(state.train.params, i), images), axis=1)
        assert (last != expected).any()
    assert found.dtype == np.int32


def test_schedules():
    """Breaks when the rate falls at another epoch, or not to zero."""
    cosine = student.learning_rates(dataclasses.replace(SOFT, num_epochs=4), 2.0)
    np.testing.assert_allclose(cosine, [2, 1 + 2**-0.5, 1, 1 - 2**-0.5], rtol=1e-6)
    steps = dataclasses.replace(SOFT, num_epochs=1000, schedule="steps")
    found = student.learning_rates(steps, 1.0)
    assert [found[e] for e in (0, 799, 800, 899, 900, 949, 950, 999)] == [
        1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125
    ]  # fmt: skip
