"""Kernel regression: the system of equations, its gradient, the batches and the pool."""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.kernel_ridge import KernelRidge

from ltdd_jax import config as configs
from ltdd_jax import training
from ltdd_jax.distill import Teacher, kernel
from ltdd_jax.distill import kernel_step as steps
from ltdd_jax.types import UserError
from tests.distill import tasks

LABELS, COUNTS = np.random.default_rng(0).normal(size=(6, 3)), (9, 4, 1)


@functools.cache
def features(width):
    rng = np.random.default_rng(width)
    return rng.normal(size=(6, width)), rng.normal(size=(5, width))


@pytest.mark.parametrize("width", [4, 9])  # below and above the number of rows
@pytest.mark.parametrize("ridge", [1e-6, 0.03])
def test_predictions_equal_solved_equations_and_scikit_learn(width, ridge):
    """Breaks when lambda is not in units of the mean diagonal, or one of the two forms is wrong."""
    made, queries = features(width)
    gram = made @ made.T
    penalty = ridge * np.trace(gram) / len(gram)
    solved = queries @ made.T @ np.linalg.solve(gram + penalty * np.eye(len(gram)), LABELS)
    known = KernelRidge(alpha=penalty, kernel="linear").fit(made, LABELS).predict(queries)
    with jax.enable_x64(True):
        found = steps.regress(*map(jnp.asarray, (made, LABELS, queries)), ridge)
    # With fewer features than rows and a small lambda the oracles themselves lose digits.
    np.testing.assert_allclose(found, solved, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-7)


def make_numbers(**more):
    return {"loss": "cross_entropy", "margin": 0.0, **more}


@pytest.mark.parametrize("width", [4, 9])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_gradient_through_the_equations_is_that_of_finite_differences(width, loss):
    """Of features and labels; breaks when something between them and the loss is held fixed."""
    made, queries = features(width)
    classes = np.array([0, 1, 2, 0, 1])
    targets = np.random.default_rng(1).dirichlet(np.ones(3), size=5)
    make_labels, measure = steps.make_loss(make_numbers(loss=loss, margin=0.3), COUNTS)
    directions = [np.random.default_rng(2).normal(size=x.shape) for x in (made, LABELS)]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):

        @jax.jit
        def value(made, labels):
            predictions = steps.regress(made, make_labels(labels), jnp.asarray(queries), 0.03)
            return measure(predictions, targets, classes)

        inputs = made, LABELS
        grads = jax.jit(jax.grad(value, argnums=(0, 1)))(*inputs)
        for i, direction in enumerate(directions):

            def moved(far, i=i, direction=direction):
                return value(*(x + far * direction if i == j else x for j, x in enumerate(inputs)))

            slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
            np.testing.assert_allclose((grads[i] * direction).sum(), slope, rtol=1e-6)


def test_losses_equal_their_sums_written_out():
    """Breaks when the margin falls on another class, or grows with the number of images."""
    rng = np.random.default_rng(3)
    predictions, targets = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), size=4)
    classes = np.array([0, 2, 1, 2])
    expected = 0.0
    for row, target, own in zip(predictions, targets, classes, strict=True):
        row = row.copy()
        row[own] -= 0.8 * (min(COUNTS) / COUNTS[own]) ** 0.25
        expected -= sum(target * np.log(np.exp(row) / np.exp(row).sum())) / 4
    arrays = [jnp.asarray(x, jnp.float32) for x in (predictions, targets)]
    make_labels, measure = steps.make_loss(make_numbers(margin=0.8), COUNTS)
    np.testing.assert_allclose(measure(*arrays, jnp.asarray(classes)), expected, rtol=1e-5)
    centred = LABELS - LABELS.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(make_labels(jnp.asarray(LABELS, jnp.float32)), centred, atol=1e-6)

    make_labels, measure = steps.make_loss(make_numbers(loss="squared"), COUNTS)
    expected = np.sum((predictions - (targets - 1 / 3)) ** 2) / 2 / 4
    np.testing.assert_allclose(measure(*arrays, jnp.asarray(classes)), expected, rtol=1e-5)
    shares = np.exp(LABELS) / np.exp(LABELS).sum(axis=1, keepdims=True)
    found = make_labels(jnp.asarray(LABELS, jnp.float32))
    np.testing.assert_allclose(found, shares - 1 / 3, atol=1e-6)


STAGES = [steps.Stage(4, 1e-3, 3, 2, 0.1, 0.3), steps.Stage(8, 3e-2, 2, 3, 0.2, 0.5)]


def test_schedule_has_the_numbers_of_each_stage_and_falls_to_its_share():
    """Breaks when a stage begins an iteration late, or the second goes on from the first's rate."""
    numbers = steps.make_schedule(STAGES, 0.02)
    found = [numbers(jnp.int32(i)) for i in range(14)]
    assert [int(x["pool_size"]) for x in found] == [3] * 4 + [2] * 10
    assert [int(x["pool_steps"]) for x in found] == [2] * 4 + [3] * 10
    np.testing.assert_allclose([x["ridge"] for x in found], [1e-3] * 4 + [3e-2] * 10)
    for name, first, second in (("image_lr", 0.1, 0.2), ("label_lr", 0.3, 0.5)):
        halves = [*(first * falling(i, 4) for i in range(4))]
        halves += [second * falling(min(i, 8), 8) for i in range(10)]  # beyond the end: the last
        np.testing.assert_allclose([x[name] for x in found], halves, rtol=1e-5)


def falling(done, length):
    return 0.02 + 0.98 * (1 + np.cos(np.pi * done / length)) / 2


def test_batches_are_balanced_and_leave_out_what_the_set_starts_from():
    """Breaks when rare classes come short, or a rare image is predicted from itself."""
    rng, rows = np.random.default_rng(4), [np.arange(9), np.arange(9, 13), np.array([13])]
    for _ in range(5):
        drawn = split_by_class(kernel.draw_rows(rng, rows, 10, "balanced"))
        assert sorted(map(len, drawn)) == [3, 3, 4]
        assert len(set(drawn[0])) == len(drawn[0]) and len(set(drawn[1])) == len(drawn[1])
    natural = kernel.draw_rows(rng, rows, 14, "natural")
    assert sorted(natural) == list(range(14))
    task = tasks.make_task()
    starts = kernel.select_start(task, tasks.IPC)
    settings = dict(exclude_starts=True, teacher_weight=0.0, batch_size=40, real_batch="balanced")
    read = kernel.make_reader(task, starts, None, settings)
    seen = find_rows(task, np.concatenate([read(i)["images"] for i in range(5)]))
    left = set(range(10)) - set(starts.tolist())
    assert seen == left | {9}  # the last class has one image, which the set starts from
    everything = kernel.make_reader(task, starts, None, settings | {"exclude_starts": False})
    assert find_rows(task, everything(0)["images"]) == set(range(10))


def split_by_class(drawn):
    bounds = [0, 9, 13, 14]
    return [drawn[(low <= drawn) & (drawn < high)] for low, high in itertools.pairwise(bounds)]


def find_rows(task, images):
    return {int(np.argmin(np.abs(task.images - x).sum(axis=(1, 2, 3)))) for x in images}


def test_targets_and_first_labels_are_those_of_the_teachers():
    """Breaks when a teacher's probabilities are mixed with other rows, or one is not asked."""
    logits = np.random.default_rng(5).normal(size=(2, 10, 3)).astype(np.float32)
    task = tasks.make_task()
    index = {task.images[i].tobytes(): i for i in range(10)}

    def teach(one):
        def apply(params, images):
            rows = jax.pure_callback(
                lambda x: np.array([index[np.asarray(i).tobytes()] for i in x], np.int32),
                jax.ShapeDtypeStruct((len(images),), jnp.int32),
                images,
            )
            return params[rows]

        network = dataclasses.replace(task.network, apply=apply)
        return Teacher(network, jnp.asarray(one))

    taught = dataclasses.replace(task, teachers=lambda kind: tuple(map(teach, logits)))
    method = tasks.make_method("krr", taught, kernel__teacher_weight=0.25)
    assert method.teachers == ("teacher",)
    mean = logits.mean(axis=0)
    start, rows = method.start(), kernel.select_start(task, tasks.IPC)
    centred = mean[rows] - mean[rows].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(start.label_logits, centred, atol=1e-6)
    batch = method.read(0)
    shares = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    for image, target, own in zip(*batch.values(), strict=True):
        expected = 0.25 * shares[index[image.tobytes()]] + 0.75 * np.eye(3)[own]
        np.testing.assert_allclose(target, expected, atol=1e-6)
    assert tasks.make_method("frepo", task).teachers == ()


def test_pool_trains_one_member_and_starts_it_anew_in_time():
    """Against lists: ages, parameters and Adam's numbers of every member after each step.

    Breaks when a member is trained that was not drawn, or starts anew a step early or late, or
    keeps its moments.
    """
    task = tasks.make_task()
    tx, members = training.allow_counts(optax.adam(0.01)), 3
    train = jax.jit(steps.make_pool_step(task, tx, batch_size=10**6))
    rng = np.random.default_rng(6)
    made = tasks.make_method("krr", task).start()
    made = made.replace(label_logits=jnp.asarray(rng.normal(size=(6, 3)), jnp.float32))
    params = jax.vmap(task.network.init)(jax.random.split(jax.random.key(7), members))
    pool = steps.Pool(params, jax.vmap(tx.init)(params), jnp.zeros(members, jnp.int32))
    ages, adam = [0] * members, [[None, None] for _ in range(members)]
    weights = [take(params, i) for i in range(members)]
    for number, member in enumerate([0, 1, 0, 0, 2, 0, 1, 1, 1]):
        key = jax.random.key(100 + number)
        pool, _ = train(jax.random.clone(key), pool, member, made, 3)
        _, augment_key, restart_key = jax.random.split(key, 3)
        images = task.augment(augment_key, made.images)

        def loss(params, images=images):
            targets = jax.nn.softmax(made.label_logits)
            return -(targets * jax.nn.log_softmax(task.network.apply(params, images))).sum(1).mean()

        grads = [
            np.asarray(x, np.float64)
            for x in jax.tree.leaves(jax.jit(jax.grad(loss))(weights[member]))
        ]
        ages[member] += 1
        first, second = adam[member] if ages[member] > 1 else ([0] * len(grads), [0] * len(grads))
        first = [0.9 * m + 0.1 * g for m, g in zip(first, grads, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, grads, strict=True)]
        adam[member] = [first, second]
        leaves, shape = jax.tree.flatten(weights[member])
        age = ages[member]
        moved = [
            np.asarray(x) - 0.01 * (m / (1 - 0.9**age)) / (np.sqrt(v / (1 - 0.999**age)) + 1e-8)
            for x, m, v in zip(leaves, first, second, strict=True)
        ]
        weights[member] = jax.tree.unflatten(shape, [jnp.asarray(x, jnp.float32) for x in moved])
        if age == 3:
            weights[member], ages[member] = task.network.init(restart_key), 0
        assert pool.age.tolist() == ages
        for i in range(members):
            found, expected = map(drop_bias, (take(pool.params, i), weights[i]))
            chex.assert_trees_all_close(found, expected, atol=2e-4)


def drop_bias(params):
    """Without the bias that the norm takes away again: its gradient is all rounding."""
    block = {**params["block_0"], "conv": params["block_0"]["conv"]["kernel"]}
    return {**params, "block_0": block}


def take(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def test_a_step_follows_the_regression_of_the_drawn_member():
    """One iteration written out: Adam's first step is the sign of the gradient, times the pace.

    Breaks when rates, the pace of rare classes or the order of set and pool change.
    """
    task = tasks.make_task(augment=lambda key, images: images)
    method = tasks.make_method(
        "krr",
        task,
        kernel__real_augmentation="",
        kernel__rate_power=0.5,
        kernel__first__pool_size=1,
        kernel__pool_lr=0.005,
        kernel__final_share=0.1,
    )
    step = jax.jit(method.step)
    state, inputs = method.init(jax.random.key(0), method.start()), method.read(0)
    before = jax.tree.map(lambda x: np.array(x, copy=True), state.synthetic)
    params = take(state.pool.params, 0)
    queries = task.network.embed(params, inputs["images"])

    own = inputs["labels"]
    margins = np.eye(3)[own] / np.array(tasks.CLASS_COUNTS)[own][:, None] ** 0.25
    margins = margins.astype(np.float32)

    def loss(images, logits):
        made = task.network.embed(params, images)
        gram = made @ made.T
        gram += 1e-3 * jnp.trace(gram) / 6 * jnp.eye(6)
        logits = logits - logits.mean(axis=1, keepdims=True)
        predictions = queries @ made.T @ jnp.linalg.solve(gram, logits)
        log_probs = jax.nn.log_softmax(predictions - margins)
        return -(inputs["targets"] * log_probs).sum(1).mean()

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
        before.images, before.label_logits
    )
    after, metrics = step(state, inputs)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-4)
    pace = np.sqrt(np.repeat(tasks.CLASS_COUNTS, 2) / max(tasks.CLASS_COUNTS))
    for name, grad, rate in (("images", grads[0], 0.01), ("label_logits", grads[1], 0.03)):
        moved = np.asarray(getattr(after.synthetic, name)) - getattr(before, name)
        expected = -rate * pace.reshape(-1, *[1] * (grad.ndim - 1)) * np.sign(grad)
        clear = np.abs(grad) > 1e-4
        assert clear.mean() > 0.5
        np.testing.assert_allclose(moved[clear], expected[clear], atol=2e-4)
    assert after.pool.age.tolist() == [1, 16, 33, 50, 66, 83] and int(after.step) == 1
    logits = task.network.apply(params, after.synthetic.images)  # the pool sees the new set
    targets = jax.nn.softmax(after.synthetic.label_logits)
    pool_loss = -(targets * jax.nn.log_softmax(logits)).sum(axis=1).mean()
    np.testing.assert_allclose(metrics["pool_loss"], pool_loss, rtol=1e-5)
    trained = take(after.pool.params, 0)["classifier"]["kernel"] - params["classifier"]["kernel"]
    np.testing.assert_allclose(np.abs(trained).max(), 0.005, rtol=0.01)
    late, _ = step(state.replace(step=jnp.int32(1000)), inputs)
    moved = np.asarray(late.synthetic.images) - before.images
    np.testing.assert_allclose(np.abs(moved).max(), 0.015 * 0.1, rtol=0.01)


def test_real_images_get_every_operation_and_the_pool_its_share():
    """Breaks when one operation is drawn in place of all, or the pool's batch is not cut."""
    images = jnp.asarray(np.random.default_rng(8).normal(size=(6, 8, 8, 1)), jnp.float32)
    light = steps.make_light_augment("flip_cutout")(jax.random.key(1), images)
    mirrored = [np.abs(light[i] - images[i]).sum() > np.abs(light[i] - images[i, :, ::-1]).sum()
                for i in range(6)]  # fmt: skip
    holes = (light == 0).sum(axis=(1, 2, 3))
    assert 0 < sum(mirrored) < 6 and (holes > 0).all()
    assert steps.make_light_augment("")(jax.random.key(1), images) is images

    task = tasks.make_task(augment=lambda key, images: images)
    made = tasks.make_method("frepo", task).start()
    params = jax.tree.map(lambda x: x[None], task.network.init(jax.random.key(2)))
    tx = optax.sgd(0.0)
    pool = steps.Pool(params, tx.init(params), jnp.zeros(1, jnp.int32))
    train = jax.jit(steps.make_pool_step(task, tx, batch_size=1))
    _, value = train(jax.random.key(3), pool, 0, made, 9)
    logits = task.network.apply(take(params, 0), made.images)
    targets = jax.nn.softmax(made.label_logits)
    rows = -(targets * jax.nn.log_softmax(logits)).sum(axis=1)
    assert np.isclose(rows, value, rtol=1e-5).any()
    first = tasks.make_method("krr", task, kernel__teacher_weight=0.0, kernel__label_scale=4.0,
                              kernel__step_size=0.3).start()  # fmt: skip
    labels = np.repeat(np.arange(3), 2)
    np.testing.assert_allclose(first.label_logits, 4 * (np.eye(3)[labels] - 1 / 3), atol=1e-6)
    assert float(first.step_size) == np.float32(0.3)


def test_mirrored_real_images_are_refused_where_synthetic_ones_are_not():
    config = tasks.make_config(
        "krr", kernel__real_augmentation="crop_flip", augment__strategy="crop"
    )
    with pytest.raises(UserError, match="leave flip out of the first") as caught:
        configs.validate(config)
    assert "\n" not in str(caught.value)
