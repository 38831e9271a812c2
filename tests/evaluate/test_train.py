"""The evaluation protocol, against the reference and one network at a time."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.evaluate import train
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout


@pytest.mark.golden
def test_golden_schedule():
    """Breaks when the drop or the number of epochs is off by one."""
    golden = load_golden("eval_protocol")
    num_epochs = len(golden["lr_per_epoch"]) - 1
    rates = train.learning_rates(float(golden["lr_net"]), num_epochs)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, golden["lr_per_epoch"], rtol=1e-6)
    np.testing.assert_array_equal(
        train.drop_epoch(num_epochs), golden["optimizer_changes_at_epoch"][0]
    )


@pytest.mark.golden
def test_golden_training_with_the_momentum_anew_after_the_drop():
    """The stored batches as epochs of one step, through the evaluator itself.

    Breaks when the momentum survives the drop, is lost elsewhere, or class weights enter.
    """
    golden = load_golden("eval_protocol")
    images, label_logits = torch_layout.to_nhwc(golden["x"]), golden["label_logits"]
    size, num_epochs = len(images) // 2, 20
    layout = dict(num_classes=label_logits.shape[1], side=images.shape[1])
    width, depth = torch_layout.convnet_shapes(golden["params0"].size, **layout)
    network = nets.build(
        "convnet",
        image_shape=images.shape[1:],
        num_classes=layout["num_classes"],
        width=width,
        depth=depth,
    )
    evaluator = train.make_evaluator(
        network,
        lambda key, rows: rows,
        num_rows=size,
        num_epochs=num_epochs,
        batch_size=size,
        momentum=float(golden["momentum"][0]),
        weight_decay=float(golden["weight_decay"][0]),
    )
    keys = jax.random.split(jax.random.key(0), 1)
    params = torch_layout.convnet_from_flat(golden["params0"], width=width, depth=depth, **layout)
    state = evaluator.init(keys.copy())
    state = state.replace(params=jax.tree.map(lambda x: jnp.asarray(x)[None], params))
    run, before = jax.jit(evaluator.run_epochs), golden["params0"]
    rates = train.learning_rates(float(golden["sgd_lr"]), num_epochs)
    drop = train.drop_epoch(num_epochs)
    for epoch, name in enumerate(["epoch0", "epoch1", "epoch2", "epoch3_lr_dropped"]):
        first = drop if name.endswith("dropped") else 2 * epoch
        values = []
        for half in range(2):
            rows = slice(half * size, (half + 1) * size)
            data, number = (images[rows], label_logits[rows]), first + half
            epochs, rate = jnp.array([number], jnp.int32), jnp.asarray(rates[None, [number]])
            state, loss = run(keys.copy(), epochs, state, data, rate)
            values.append(loss)
        flat = torch_layout.convnet_to_flat(
            jax.tree.map(lambda x: np.asarray(x[0]), state.params), side=layout["side"]
        )
        after = golden[f"params_after_{name}"]
        assert relative_error(flat - before, after - before) < 1e-3, name
        assert relative_error(np.mean(values), golden["train_losses"][epoch]) < 1e-5
        before = after


@pytest.mark.parametrize("num_epochs", [1, 2, 7, 20])
def test_schedule_written_out(num_epochs):
    """One epoch more than its name says, a tenth of the rate after epoch E // 2 + 1."""
    rates = train.learning_rates(0.5, num_epochs)
    expected = [0.5 if epoch <= num_epochs // 2 + 1 else 0.05 for epoch in range(num_epochs + 1)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


NUM_ROWS, NUM_CLASSES, NUM_EPOCHS = 6, 3, 4


def _jitter(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), minval=0.5)


@functools.cache
def _network():
    return nets.build("convnet", image_shape=(4, 4, 1), num_classes=NUM_CLASSES, width=3, depth=1)


def _make(augment=_jitter, **options):
    return train.make_evaluator(
        _network(),
        augment,
        num_rows=NUM_ROWS,
        num_epochs=NUM_EPOCHS,
        batch_size=4,
        momentum=0.9,
        weight_decay=5e-4,
        **options,
    )


def _data(seed=0):
    keys = jax.random.split(jax.random.key(seed))
    labels = jnp.arange(NUM_ROWS) % NUM_CLASSES
    images = jax.random.normal(keys[0], (NUM_ROWS, 4, 4, 1))
    return images, 5 * jax.nn.one_hot(labels, NUM_CLASSES)


EPOCHS = np.arange(NUM_EPOCHS + 1, dtype=np.int32)
RATES = train.learning_rates(0.1, NUM_EPOCHS)


def _repeat_rates(count):
    """The same rates for each of `count` networks."""
    return jnp.tile(jnp.asarray(RATES), (count, 1))


def _train(evaluator, run, data, seed=0, count=3):
    keys = jax.random.split(jax.random.key(seed), count)
    state = evaluator.init(keys.copy())
    return run(keys, jnp.asarray(EPOCHS), state, data, _repeat_rates(count))


def _member(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def test_networks_at_once_equal_one_at_a_time():
    """Breaks when networks share a start, an order of the data or an augmentation."""
    evaluator, data = _make(), _data()
    run = jax.jit(evaluator.run_epochs)
    states, found = _train(evaluator, run, data)
    assert found.shape == (3, NUM_EPOCHS + 1)
    keys = jax.random.split(jax.random.key(0), 3)
    for i in range(3):
        start = evaluator.init(keys.copy()[i : i + 1])
        one, loss = run(keys.copy()[i : i + 1], jnp.asarray(EPOCHS), start, data, _repeat_rates(1))
        chex.assert_trees_all_close(_member(states, i), _member(one, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[i], loss[0], rtol=1e-4)
    for networks in (evaluator.init(keys.copy()), states):
        kernels = np.asarray(networks.params["classifier"]["kernel"])
        assert np.abs(kernels[0] - kernels[1]).max() > 1e-2


def test_key_decides_everything():
    evaluator, data = _make(), _data()
    run = jax.jit(evaluator.run_epochs)
    first, again, other = (_train(evaluator, run, data, seed)[0] for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(
        first.params["classifier"]["kernel"], other.params["classifier"]["kernel"]
    )


def test_order_of_the_rows_differs_between_networks_and_epochs():
    """From one start and without augmentation; breaks when a shuffle ignores key or epoch."""
    evaluator, data = _make(augment=lambda key, images: images), _data()
    run = jax.jit(evaluator.run_epochs)
    start = evaluator.init(jax.random.split(jax.random.key(0), 1))
    start = jax.tree.map(lambda x: jnp.concatenate([x, x]), start)
    kernels = []
    for epoch in range(2):
        keys, epochs = jax.random.split(jax.random.key(1), 2), jnp.array([epoch], jnp.int32)
        state, _ = run(keys, epochs, start, data, jnp.full((2, 1), 0.1))
        kernels += list(np.asarray(state.params["classifier"]["kernel"]))
    for i, j in itertools.combinations(range(4), 2):
        assert np.abs(kernels[i] - kernels[j]).max() > 1e-5


def test_epochs_can_be_run_in_parts():
    """Across the drop too; breaks when the momentum is lost or reset at a border of two calls."""
    evaluator, data = _make(), _data()
    run = jax.jit(evaluator.run_epochs)
    whole, found = _train(evaluator, run, data)
    keys = jax.random.split(jax.random.key(0), 3)
    state, losses = evaluator.init(keys.copy()), []
    for part in np.split(np.arange(NUM_EPOCHS + 1), [2, 4]):
        epochs, rates = jnp.asarray(EPOCHS[part]), _repeat_rates(3)[:, part]
        state, loss = run(keys.copy(), epochs, state, data, rates)
        losses.append(loss)
    chex.assert_trees_all_close(state, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(losses, axis=1), found, rtol=1e-4)


@pytest.mark.parametrize("lanes", [None, 1])
def test_every_network_may_have_its_own_rates(lanes):
    """Equal to a call per schedule; breaks when a network learns at another's rate."""
    evaluator, data = _make(lanes=lanes), _data()
    run, epochs = jax.jit(evaluator.run_epochs), jnp.asarray(EPOCHS)
    keys = jax.random.split(jax.random.key(0), 2)
    rates = jnp.stack([train.learning_rates(rate, NUM_EPOCHS) for rate in (0.1, 0.02)])
    states, found = run(keys.copy(), epochs, evaluator.init(keys.copy()), data, rates)
    for i in range(2):
        key = keys.copy()[i : i + 1]
        one, loss = run(key, epochs, evaluator.init(key.copy()), data, rates[i : i + 1])
        chex.assert_trees_all_close(_member(states, i), _member(one, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[i], loss[0], rtol=1e-4)


def test_every_network_may_have_its_own_data():
    """Equal to a call per data set; breaks when the axis of the data is mixed up."""
    sets = [_data(seed) for seed in range(2)]
    shared, own = _make(), _make(data_per_network=True)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *sets)
    found, _ = _train(own, jax.jit(own.run_epochs), stacked, count=2)
    run = jax.jit(shared.run_epochs)
    for i, data in enumerate(sets):
        expected, _ = _train(shared, run, data, count=2)
        chex.assert_trees_all_close(
            _member(found, i).params, _member(expected, i).params, rtol=1e-4, atol=1e-5
        )


def test_lanes_change_nothing():
    """Three networks two at a time, with a data set of their own each."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[_data(seed) for seed in range(3)])
    results = []
    for lanes in (None, 2):
        evaluator = _make(data_per_network=True, lanes=lanes)
        results.append(_train(evaluator, jax.jit(evaluator.run_epochs), stacked))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


def test_learns_and_predicts_classes():
    """The rows themselves after training; breaks when `predict` is not that of the state."""
    evaluator, (images, label_logits) = _make(), _data()
    run = jax.jit(evaluator.run_epochs)
    keys = jax.random.split(jax.random.key(0), 2)
    epochs = jnp.zeros(60, jnp.int32) + jnp.arange(60, dtype=jnp.int32) % 2
    state, found = run(
        keys.copy(),
        epochs,
        evaluator.init(keys.copy()),
        (images, label_logits),
        jnp.full((2, 60), 0.1),
    )
    assert (found[:, -5:].mean(axis=1) < 0.5 * found[:, 0]).all()
    classes = jax.jit(evaluator.predict)(state, images)
    assert classes.dtype == jnp.int32 and classes.shape == (2, NUM_ROWS)
    for i in range(2):
        logits = _network().apply(_member(state.params, i), images)
        np.testing.assert_array_equal(classes[i], np.argmax(logits, axis=1))
    assert (np.asarray(classes) == np.argmax(np.asarray(label_logits), axis=1)).mean() > 0.8


def test_second_call_compiles_nothing():
    """With the state of the first call, other keys and other data."""
    evaluator, epochs, rates = _make(), jnp.asarray(EPOCHS), _repeat_rates(2)
    state = evaluator.init(jax.random.split(jax.random.key(0), 2))
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(lambda *args: evaluator.run_epochs(*args), n=1))
    for seed in range(3):
        keys = jax.random.split(jax.random.key(seed), 2)
        state, _ = run(keys, epochs, state, _data(seed), rates)


def test_rates_of_the_warm_up():
    """Breaks when the rise or the fall has another length or end."""
    rates = train.warm_up_rates(0.1, 4)
    half = 0.1 * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2
    np.testing.assert_allclose(rates, [0.05, 0.1, *half], rtol=1e-6)
    assert train.warm_up_rates(0.1, 1).shape == (2,)


def test_adam_steps_equal_the_published_rule():
    """Breaks when Adam starts anew at the epoch where SGD's momentum does, or decay is left out."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 4, 4, 1)).astype(np.float32)
    logits = 10 * np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    network = nets.build("mlp", image_shape=(4, 4, 1), num_classes=3, width=2)
    num_epochs, decay = 2, 0.1
    evaluator = train.make_evaluator(
        network, lambda key, x: x, num_rows=6, num_epochs=num_epochs, batch_size=6, momentum=0.9,
        weight_decay=decay, adam=True,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 1)
    state = evaluator.init(keys)
    rates = train.warm_up_rates(0.1, num_epochs)
    start = jax.tree.map(lambda x: np.asarray(x[0], np.float64), state.params)
    epochs = np.arange(num_epochs + 1, dtype=np.int32)
    found, _ = jax.jit(evaluator.run_epochs)(keys, epochs, state, (images, logits), rates[None])

    def loss(params):
        targets = jax.nn.softmax(logits)
        return -(targets * jax.nn.log_softmax(network.apply(params, images))).sum(1).mean()

    gradient, params = jax.jit(jax.grad(loss)), start
    first = second = jax.tree.map(np.zeros_like, start)
    for step, rate in enumerate(rates, start=1):
        grads = gradient(jax.tree.map(np.float32, params))
        grads = jax.tree.map(lambda g, p: np.float64(g) + decay * p, grads, params)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        params = jax.tree.map(
            lambda p, m, v, n=step, r=rate: (
                p - r * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
            ),
            params, first, second,
        )  # fmt: skip
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-3, atol=1e-4)
