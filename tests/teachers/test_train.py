"""A teacher's training: rates, a step by hand, and epochs that can be repeated."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets, training
from ltdd_jax.teachers import glmc, train

COUNTS = (5, 3, 1)


def make_recipe(**fields):
    chosen = {
        "recipe": "plain", "num_epochs": 4, "batch_size": 4, "learning_rate": 0.1,
        "momentum": 0.9, "nesterov": False, "weight_decay": 0.1, "schedule": "cosine", "tau": 1.0,
        "weight_power": 0.8, "sampling_power": 0.8, "similarity": 1.0,
    }  # fmt: skip
    return train.Recipe(**(chosen | fields))


@pytest.fixture(scope="module")
def network():
    return nets.build("convnet_bn", image_shape=(4, 4, 1), num_classes=3, width=3, depth=1)


def make_data():
    images = np.random.default_rng(0).normal(size=(sum(COUNTS), 4, 4, 1)).astype(np.float32)
    return images, np.repeat(np.arange(3), COUNTS).astype(np.int32)


def jitter(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), images.dtype, 0.5)


def test_schedules_by_hand():
    rates = train.learning_rates("cosine", 2.0, 4)
    np.testing.assert_allclose(rates, [2, 1 + np.sqrt(0.5), 1, 1 - np.sqrt(0.5)], rtol=1e-6)
    rates = train.learning_rates("step", 1.0, 10)
    np.testing.assert_allclose(rates, [1] * 6 + [0.1] * 2 + [0.01] * 2, rtol=1e-6)
    np.testing.assert_array_equal(train.learning_rates("constant", 0.5, 3), np.full(3, 0.5))
    with pytest.raises(ValueError, match="schedule"):
        train.learning_rates("cosin", 1.0, 3)


@pytest.mark.parametrize("recipe", ["balanced_softmax", "glmc"])
def test_an_epoch_depends_on_its_number_and_state_alone(network, recipe):
    """Breaks when a resumed training sees other rows, rates or progress than one in one go."""
    made = train.make_training(network, make_recipe(recipe=recipe), jitter, COUNTS)
    run, init = jax.jit(made.run_epoch), jax.jit(made.init)

    def go(seed):
        key = jax.random.key(seed)
        states = [init(key)]
        for epoch in range(3):
            states.append(run(key, jnp.int32(epoch), states[-1], make_data())[0])
        return states

    states, again = go(0), go(0)
    chex.assert_trees_all_equal(states[-1], again[-1])
    repeated, loss = run(jax.random.key(0), jnp.int32(2), states[2], make_data())
    chex.assert_trees_all_equal(repeated, states[3])
    assert np.isfinite(loss)
    other = go(1)
    kernel = [s[-1].params["block_0"]["conv"]["kernel"] for s in (states, other)]
    assert np.abs(kernel[0] - kernel[1]).max() > 1e-3
    params = made.finish(states[-1])
    assert params.keys() == {"block_0", "classifier", "statistics"}
    assert int(states[-1].step) == 3 * (sum(COUNTS) // 4)  # short batches are left out


def test_nesterov_steps_ahead():
    """v <- mu v + g and the step g + mu v, by hand; breaks when it is plain momentum."""
    tx = training.make_optimizer(momentum=0.5, weight_decay=0.0, nesterov=True)
    params = {"w": jnp.array(1.0)}
    state, velocity = tx.init(params), 0.0
    for slope in (1.0, -2.0, 0.5):
        updates, state = tx.update({"w": jnp.array(slope)}, state, params)
        velocity = 0.5 * velocity + slope
        assert float(updates["w"]) == pytest.approx(slope + 0.5 * velocity)


def test_progress_is_the_square_of_the_share_of_epochs(network, monkeypatch):
    """Breaks when the classifier takes over at another epoch than published."""

    def make_loss(*settings, **more):
        return lambda params, inputs, labels, weights: (inputs[0], params)

    monkeypatch.setattr(glmc, "make_loss", make_loss)
    recipe = make_recipe(recipe="glmc", batch_size=9)
    made = train.make_training(network, recipe, lambda key, rows: rows, COUNTS)
    key = jax.random.key(0)
    _, loss = jax.jit(made.run_epoch)(key, jnp.int32(3), jax.jit(made.init)(key), make_data())
    assert float(loss) == pytest.approx((3 / 4) ** 2)


def test_a_step_by_hand(network):
    """The step of the optimiser by hand, one batch of all images; breaks on a wrong rate or decay.

    The statistics are of the weights before the step, and decay leaves them alone.
    """
    recipe = make_recipe(batch_size=9, momentum=0.0)
    made = train.make_training(network, recipe, lambda key, rows: rows, COUNTS)
    key, (images, labels) = jax.random.key(0), make_data()
    start = jax.jit(made.init)(key)
    after, loss = jax.jit(made.run_epoch)(key, jnp.int32(3), start, (images, labels))

    def objective(params):
        logits, moved = network.train(params, images)
        picked = jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
        return -picked.mean(), moved

    (value, moved), slope = jax.jit(jax.value_and_grad(objective, has_aux=True))(start.params)
    assert float(loss) == pytest.approx(float(value), rel=1e-5)
    rate = 0.1 * (1 + np.cos(3 / 4 * np.pi)) / 2
    for layer in ("block_0", "classifier"):
        expected = jax.tree.map(
            lambda p, g: p - rate * (g + 0.1 * p), start.params[layer], slope[layer]
        )
        chex.assert_trees_all_close(after.params[layer], expected, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(after.params["statistics"], moved["statistics"], rtol=1e-5)
