"""One network's training: the optimiser and an epoch, by hand and against the reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import losses, nets, training
from ltdd_jax.data import augment, batches
from ltdd_jax.types import Batch
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout


@pytest.mark.golden
def test_golden_epochs_with_momentum_and_decay():
    """Three epochs in the stored order and one at the lower rate with fresh momentum.

    Breaks when decay leaves out a parameter or enters after momentum, or the loss is a sum.
    """
    golden = load_golden("eval_protocol")
    images, label_logits = torch_layout.to_nhwc(golden["x"]), golden["label_logits"]
    layout = dict(num_classes=label_logits.shape[1], side=images.shape[1])
    width, depth = torch_layout.convnet_shapes(golden["params0"].size, **layout)
    network = nets.build(
        "convnet",
        image_shape=images.shape[1:],
        num_classes=layout["num_classes"],
        width=width,
        depth=depth,
    )
    order = jnp.arange(len(images), dtype=jnp.int32)
    tx = training.make_optimizer(
        momentum=float(golden["momentum"][0]), weight_decay=float(golden["weight_decay"][0])
    )

    def loss_fn(params, rows, targets, weights):
        values = losses.soft_cross_entropy(network.apply(params, rows), targets)
        return (weights * values).sum()

    run = jax.jit(
        training.make_epoch(
            loss_fn,
            tx,
            draw_batches=lambda key, epoch: batches.cut_stream(order, len(order) // 2),
            augment=lambda key, rows: rows,
        )
    )
    params = torch_layout.convnet_from_flat(golden["params0"], width=width, depth=depth, **layout)
    state, before = training.init_train_state(params, tx), golden["params0"]
    names = ["epoch0", "epoch1", "epoch2", "epoch3_lr_dropped"]
    for epoch, name in enumerate(names):
        rate = golden["sgd_lr"]
        if name.endswith("dropped"):
            rate, state = 0.1 * rate, state.replace(opt_state=tx.init(state.params))
        data = (images, label_logits)
        state, loss = run(jax.random.key(0), jnp.int32(epoch), state, {}, data, jnp.float32(rate))
        after = golden[f"params_after_{name}"]
        change = torch_layout.convnet_to_flat(state.params, side=layout["side"]) - before
        assert relative_error(change, after - before) < 1e-3
        assert relative_error(loss, golden["train_losses"][epoch]) < 1e-5
        before = after
    assert int(state.step) == 2 * len(names)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimizer_is_heavy_ball_with_decay_on_everything(momentum, weight_decay):
    """v ← μv + (d + wd·w), by hand; breaks when a norm or bias is spared."""
    tx = training.make_optimizer(momentum=momentum, weight_decay=weight_decay)
    params = {"norm": {"scale": jnp.array([2.0, -1.0])}, "bias": jnp.array(3.0)}
    state = training.init_train_state(params, tx)
    assert state.step.dtype == jnp.int32 and state.step == 0
    velocity, opt_state = jax.tree.map(jnp.zeros_like, params), state.opt_state
    for i in range(3):
        grads = jax.tree.map(lambda x, i=i: jnp.cos(x + i), params)
        updates, opt_state = tx.update(grads, opt_state, params)
        velocity = jax.tree.map(
            lambda v, g, p: momentum * v + g + weight_decay * p, velocity, grads, params
        )
        chex.assert_trees_all_close(updates, velocity, rtol=1e-5, atol=1e-6)
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)


NUM_ROWS, BATCH = 7, 3


def _draw_batches(key, epoch):
    return batches.shuffle_epoch(jax.random.fold_in(key, epoch), NUM_ROWS, BATCH)


def _jitter(key, images):
    return images * jax.random.uniform(key, images.shape, minval=0.5, maxval=1.5)


def _loss_fn(params, rows, targets, weights):
    logits = rows.reshape(len(rows), -1) @ params["w"]
    return (weights * losses.cross_entropy(logits, targets)).sum()


def _problem(seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {"w": jax.random.normal(keys[0], (4, 3))}
    images = jax.random.normal(keys[1], (NUM_ROWS, 2, 2, 1))
    return params, (images, jnp.arange(NUM_ROWS, dtype=jnp.int32) % 3)


def _make(augment=_jitter, momentum=0.9, **options):
    tx = training.make_optimizer(momentum=momentum, weight_decay=0.01)
    options = dict(draw_batches=_draw_batches) | options
    return training.make_epoch(_loss_fn, tx, augment=augment, **options), tx


RATE = np.float32(0.2)


def test_epoch_equals_a_python_loop():
    """Over the batches that were drawn; breaks on a wrong row, weight, order or mean."""
    drawn = _draw_batches(jax.random.key(9), 0)
    run, tx = _make(augment=lambda key, rows: rows, draw_batches=lambda key, epoch: drawn)
    params, (images, labels) = _problem()
    start = training.init_train_state(params, tx)
    state, loss = jax.jit(run)(jax.random.key(0), jnp.int32(0), start, {}, (images, labels), RATE)
    theta, opt_state, values = params, start.opt_state, []
    for rows, weights in zip(np.asarray(drawn.indices), np.asarray(drawn.weights), strict=True):
        rows = rows[weights > 0]
        even = jnp.full(len(rows), 1 / len(rows))
        value, grads = jax.value_and_grad(_loss_fn)(theta, images[rows], labels[rows], even)
        updates, opt_state = tx.update(grads, opt_state, theta)
        theta = jax.tree.map(lambda p, v: p - RATE * v, theta, updates)
        values.append(value)
    assert len(rows) == 1  # the short batch comes last
    chex.assert_trees_all_close(state.params, theta, rtol=1e-5)
    chex.assert_trees_all_close(state.opt_state, opt_state, rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean(values), rtol=1e-5)
    assert int(state.step) == len(values) == 3


def test_an_epoch_depends_on_its_number_and_state_alone():
    """Breaks when an epoch of a resumed training would see other rows or augmentation."""
    run, tx = _make()
    run = jax.jit(run)
    params, data = _problem()
    states = [training.init_train_state(params, tx)]
    for epoch in range(3):
        state, _ = run(jax.random.key(0), jnp.int32(epoch), states[-1], {}, data, RATE)
        states.append(state)
    again, _ = run(jax.random.key(0), jnp.int32(2), states[2], {}, data, RATE)
    chex.assert_trees_all_equal(again, states[3])
    for key, epoch in ((0, 3), (1, 2)):
        other, _ = run(jax.random.key(key), jnp.int32(epoch), states[2], {}, data, RATE)
        assert not np.array_equal(other.params["w"], states[3].params["w"])


def test_augmentation_and_rows_are_drawn_anew():
    """Every step of every epoch and network has its own key, none of them that of the batches."""
    seen = []

    def note(data):
        seen.append(tuple(np.asarray(data).tolist()))

    def record(key, images):
        jax.debug.callback(note, jax.random.key_data(key))
        return images

    def draw_batches(key, epoch):
        jax.debug.callback(note, jax.random.key_data(key))
        return _draw_batches(key, epoch)

    run, tx = _make(augment=record, draw_batches=draw_batches)
    run = jax.jit(run)
    params, data = _problem()
    state = training.init_train_state(params, tx)
    for seed in range(2):
        for epoch in range(2):
            run(jax.random.key(seed), jnp.int32(epoch), state, {}, data, RATE)
    jax.effects_barrier()
    # 2 trainings x 2 epochs x 3 steps; the key of the batches is that of the training.
    assert len(seen) == 2 * 2 * (3 + 1) and len(set(seen)) == 2 * 2 * 3 + 2


def test_vmap_over_networks_equals_a_loop():
    """With a different augmentation in each; breaks when one network gets another's draws."""
    run, tx = _make(augment=augment.make_augment("color_crop_flip_scale"))
    _, data = _problem()
    members = [_problem(seed)[0] for seed in range(3)]
    states = [training.init_train_state(member, tx) for member in members]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    keys = jax.random.split(jax.random.key(5), 3)
    batched = jax.jit(jax.vmap(run, in_axes=(0, None, 0, None, None, None)))
    found, found_losses = batched(keys.copy(), jnp.int32(1), stacked, {}, data, RATE)
    single = jax.jit(run)
    for i, state in enumerate(states):
        expected, loss = single(keys.copy()[i], jnp.int32(1), state, {}, data, RATE)
        one = jax.tree.map(lambda x, i=i: x[i], found)
        chex.assert_trees_all_close(one, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found_losses[i], loss, rtol=1e-5)


def test_prepared_inputs_are_outside_of_the_derivative():
    """`prepare` sees augmented rows and the frozen parameters, and gives the loss its inputs.

    Breaks when it is skipped, runs before the augmentation, or on the wrong rows.
    """
    drawn = Batch(
        indices=jnp.array([[4, 1]], jnp.int32), weights=jnp.array([[0.5, 0.5]], jnp.float32)
    )
    run, tx = _make(
        augment=lambda key, rows: rows + 1,
        draw_batches=lambda key, epoch: drawn,
        prepare=lambda frozen, rows: rows * frozen["scale"],
        momentum=0.0,
    )
    params, (images, labels) = _problem()
    start, frozen = training.init_train_state(params, tx), {"scale": jnp.float32(3)}
    state, loss = jax.jit(run)(
        jax.random.key(0), jnp.int32(0), start, frozen, (images, labels), RATE
    )
    rows = np.array([4, 1])
    value, grads = jax.value_and_grad(_loss_fn)(
        params, 3 * (images[rows] + 1), labels[rows], jnp.array([0.5, 0.5])
    )
    expected = params["w"] - RATE * (grads["w"] + 0.01 * params["w"])
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, value, rtol=1e-6)


def test_gradient_function_decides_the_direction():
    """A direction of ones moves all parameters alike; breaks when the true gradient is used."""

    def ones(loss, params):
        return loss(params), jax.tree.map(jnp.ones_like, params)

    tx = training.make_optimizer(momentum=0.0, weight_decay=0.0)
    run = training.make_epoch(
        _loss_fn, tx, draw_batches=_draw_batches, augment=_jitter, gradient=ones
    )
    params, data = _problem()
    start = training.init_train_state(params, tx)
    state, _ = jax.jit(run)(jax.random.key(0), jnp.int32(0), start, {}, data, RATE)
    np.testing.assert_allclose(state.params["w"], params["w"] - 3 * RATE, rtol=1e-5)
    value, grads = training.plain_gradient(lambda p: (p["w"] ** 2).sum(), params)
    np.testing.assert_allclose(value, (params["w"] ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(grads["w"], 2 * params["w"], rtol=1e-6)


def test_second_epoch_compiles_nothing():
    """Neither another epoch number nor another learning rate or key."""
    run, tx = _make()
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(run, n=1))
    params, data = _problem()
    state = training.init_train_state(params, tx)
    for epoch in range(3):
        rate = jnp.float32(0.1 / (epoch + 1))
        state, _ = run(jax.random.key(epoch), jnp.int32(epoch), state, {}, data, rate)


@pytest.mark.parametrize("lanes", [None, 1, 2, 5])
def test_lanes_change_nothing_but_the_order_of_work(lanes):
    """Also when they do not divide the networks; breaks when shared arguments are split."""

    def function(key, scale, tree, shift):
        noise = jax.random.normal(key, (2,))
        return {"sum": tree["x"] * scale + noise + shift, "norm": (tree["x"] ** 2).sum()}

    keys = jax.random.split(jax.random.key(0), 3)
    tree, scale = {"x": jnp.arange(6.0).reshape(3, 2)}, jnp.array([2.0, 3.0])
    mapped = training.vectorize(function, (0, None, 0, None), lanes)
    found = jax.jit(mapped)(keys.copy(), scale, tree, jnp.float32(1))
    for i in range(3):
        expected = function(keys.copy()[i], scale, {"x": tree["x"][i]}, jnp.float32(1))
        one = jax.tree.map(lambda x, i=i: x[i], found)
        chex.assert_trees_all_close(one, expected, rtol=1e-6)


@pytest.mark.parametrize("lanes", [1, 2])
def test_epochs_in_lanes_equal_epochs_at_once(lanes):
    """With keys, momentum and augmentation, three networks in lanes."""
    run, tx = _make()
    _, data = _problem()
    states = [training.init_train_state(_problem(seed)[0], tx) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    keys = jax.random.split(jax.random.key(5), 3)
    in_axes = (0, None, 0, None, None, None)
    found, expected = (
        jax.jit(training.vectorize(run, in_axes, n))(
            keys.copy(), jnp.int32(1), stacked, {}, data, RATE
        )
        for n in (lanes, None)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
