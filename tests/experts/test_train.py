"""Experts: one at a time, many at once, and both stages against the reference."""

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.experts import train
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout

COUNTS = (5, 3, 2)
RECIPE = train.Recipe(
    num_epochs=3,
    batch_size=4,
    learning_rate=0.1,
    momentum=0.5,
    weight_decay=0.01,
    rho=0.05,
    alpha=0.3,
    adaptive=True,
)


def _identity(key, images):
    return images


def _jitter(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), minval=0.5)


@pytest.mark.golden
@pytest.mark.parametrize("stage", ["representation", "classifier"])
def test_golden_steps(stage):
    """Three GSAM steps of the expert itself, one per epoch, each on the rows of one stored batch.

    The rows come in another order, which changes a mean by rounding only. Breaks when a loss is
    a sum, the wrong part moves, or decay misses a parameter.
    """
    golden = load_golden("gsam_step")
    images = torch_layout.to_nhwc(golden["x"])
    num_steps, num_classes = len(golden["losses"]), int(golden["y"].max()) + 1
    size, side = len(images) // num_steps, images.shape[1]
    layout = dict(num_classes=num_classes, side=side)
    width, depth = torch_layout.convnet_shapes(golden["params_before"].size, **layout)
    start = torch_layout.convnet_from_flat(
        golden["params_before"], width=width, depth=depth, **layout
    )
    network = nets.build(
        "convnet", image_shape=images.shape[1:], num_classes=num_classes, width=width, depth=depth
    )
    network = dataclasses.replace(network, init=lambda key: start)
    recipe = train.Recipe(
        num_epochs=num_steps,
        batch_size=size,
        learning_rate=float(golden["lr"]),
        momentum=0.0,
        weight_decay=float(golden["weight_decay"]) if stage == "representation" else 0.0,
        rho=float(golden["rho"]),
        alpha=float(golden["alpha"]),
        adaptive=True,
    )
    if stage == "representation":
        expert, prefix = train.make_representation_expert(network, recipe, _identity, size), ""
    else:
        # As one class, so that every row is drawn once.
        expert = train.make_classifier_expert(network, recipe, _identity, (size,))
        prefix = "frozen_"
    state, frozen = expert.init(jax.random.key(0), start)
    run, before = jax.jit(expert.run_epoch), golden["params_before"]
    for i in range(num_steps):
        rows = slice(i * size, (i + 1) * size)
        data = (images[rows], golden["y"][rows])
        state, loss = run(jax.random.key(0), jnp.int32(i), state, frozen, data)
        after = golden[f"{prefix}params_after_step{i}"]
        change = torch_layout.convnet_to_flat(frozen | state.params, side=side) - before
        # Tighter than elsewhere: leaving GSAM out changes the classifier's steps by 1e-3 only.
        assert relative_error(change, after - before) < 1e-4
        if stage == "representation":
            assert relative_error(loss, golden["losses"][i]) < 1e-5
        before = after


def _network():
    return nets.build("convnet", image_shape=(4, 4, 1), num_classes=3, width=3, depth=1)


def _data():
    """Images sorted by class that a network can tell apart."""
    labels = np.repeat(np.arange(3), COUNTS).astype(np.int32)
    noise = jax.random.normal(jax.random.key(7), (len(labels), 4, 4, 1))
    pattern = np.sin(np.arange(48).reshape(3, 4, 4, 1) ** 1.5).astype(np.float32)
    return pattern[labels] + 0.3 * noise, jnp.asarray(labels)


def _make(stage, recipe=RECIPE, augment=_jitter, **options):
    if stage == "representation":
        return train.make_representation_expert(_network(), recipe, augment, sum(COUNTS))
    return train.make_classifier_expert(_network(), recipe, augment, COUNTS, **options)


def _sources(count):
    keys = jax.random.split(jax.random.key(3), count)
    return jax.jit(jax.vmap(_network().init))(keys)


STAGES = ("representation", "classifier")


@pytest.mark.parametrize("stage", STAGES)
def test_many_at_once_equal_one_after_the_other(stage):
    """Breaks when experts share keys, data order, augmentation or a norm of GSAM."""
    expert, data, sources = _make(stage), _data(), _sources(3)
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.jit(jax.vmap(lambda k, s: train.train_expert(expert, k, s, data)))
    paths, found_losses = batched(keys.copy(), sources)
    single = jax.jit(lambda k, s: train.train_expert(expert, k, s, data))
    for i in range(3):
        source = jax.tree.map(lambda x, i=i: x[i], sources)
        path, loss = single(keys.copy()[i], source)
        one = jax.tree.map(lambda x, i=i: x[i], paths)
        chex.assert_trees_all_close(one, path, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found_losses[i], loss, rtol=1e-4)
    # A rounding error would not be noticed above if all experts were alike.
    kernels = np.asarray(paths["classifier"]["kernel"])[:, -1]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-2


@pytest.mark.parametrize("stage", STAGES)
def test_trajectory_is_the_start_and_every_epoch(stage):
    """Breaks when snapshot 0 is not the start, or an epoch is skipped or repeated."""
    expert, data = _make(stage), _data()
    source = jax.tree.map(lambda x: x[0], _sources(1))
    path, found = jax.jit(lambda k: train.train_expert(expert, k, source, data))(jax.random.key(0))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(path)} == {RECIPE.num_epochs + 1}
    assert found.shape == (RECIPE.num_epochs,)
    state, frozen = expert.init(jax.random.key(0), source)
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(expert.run_epoch, n=1))  # compiles once, for all epochs
    for epoch in range(RECIPE.num_epochs + 1):
        snapshot = jax.tree.map(lambda x, t=epoch: x[t], path)
        if epoch == 0:
            # Compiled with the epochs and alone, the initialisation rounds differently.
            chex.assert_trees_all_close(snapshot, state.params, rtol=1e-6, atol=1e-7)
        else:
            state, loss = run(jax.random.key(0), jnp.int32(epoch - 1), state, frozen, data)
            chex.assert_trees_all_close(snapshot, state.params, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found[epoch - 1], loss, rtol=1e-4)
    steps_per_epoch = -(-sum(COUNTS) // 4) if stage == "representation" else -(-3 * 5 // 4)
    assert int(state.step) == RECIPE.num_epochs * steps_per_epoch


@pytest.mark.parametrize("stage", STAGES)
def test_key_decides_everything(stage):
    expert, data = _make(stage), _data()
    source = jax.tree.map(lambda x: x[0], _sources(1))
    run = jax.jit(lambda key: train.train_expert(expert, key, source, data)[0])
    first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    last = [np.asarray(path["classifier"]["kernel"])[-1] for path in (first, other)]
    assert not np.array_equal(*last)


@pytest.mark.parametrize("stage", STAGES)
def test_order_of_the_rows_differs_between_experts_and_epochs(stage):
    """From one start and without augmentation; breaks when a shuffle ignores key or epoch."""
    expert, data = _make(stage, augment=_identity), _data()
    state, frozen = expert.init(jax.random.key(0), jax.tree.map(lambda x: x[0], _sources(1)))
    run, kernels = jax.jit(expert.run_epoch), []
    for seed, epoch in itertools.product(range(2), range(2)):
        moved, _ = run(jax.random.key(seed), jnp.int32(epoch), state, frozen, data)
        kernels.append(np.asarray(moved.params["classifier"]["kernel"]))
    for i, j in itertools.combinations(range(4), 2):
        assert np.abs(kernels[i] - kernels[j]).max() > 1e-5


def test_representation_experts_start_from_the_network_and_learn():
    expert, data = _make("representation", dataclasses.replace(RECIPE, num_epochs=40)), _data()
    run = jax.jit(lambda key: train.train_expert(expert, key, {}, data))
    path, found = run(jax.random.key(0))
    other, _ = run(jax.random.key(1))
    assert found[-1] < 0.5 * found[0]
    shapes = jax.tree.map(lambda x: x.shape[1:], path)
    assert shapes == jax.tree.map(jnp.shape, _network().init(jax.random.key(0)))
    kernels = [np.asarray(p["block_0"]["conv"]["kernel"])[0] for p in (path, other)]
    assert not np.array_equal(*kernels)


def test_classifier_expert_moves_the_classifier_alone():
    """It starts at the source, keeps no copy of the backbone, and its loss is that of the whole."""
    data = _data()
    source = jax.tree.map(lambda x: x[0], _sources(1))
    expert = _make("classifier", dataclasses.replace(RECIPE, num_epochs=40), _identity)
    state, frozen = expert.init(jax.random.key(0), source)
    assert set(state.params) == {"classifier"}
    chex.assert_trees_all_equal(frozen, source)
    chex.assert_trees_all_equal(state.params["classifier"], source["classifier"])
    path, found = jax.jit(lambda k: train.train_expert(expert, k, source, data))(jax.random.key(0))
    assert set(path) == {"classifier"}
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[0], path), state.params)

    # Every class counts alike in the loss of an epoch, whatever its number of images.
    def balanced_loss(params):
        log_probs = jax.nn.log_softmax(_network().apply(params, data[0]))
        rows = -np.asarray(log_probs)[np.arange(sum(COUNTS)), np.asarray(data[1])]
        return np.mean([rows[np.asarray(data[1]) == k].mean() for k in range(3)])

    last = source | jax.tree.map(lambda x: x[-1], path)
    assert balanced_loss(last) < 0.8 * balanced_loss(source)
    assert abs(found[-1] - balanced_loss(last)) < 0.1
    # The backbone is used: with another one the same key gives another path.
    other = {**source, "block_0": jax.tree.map(lambda x: x + 0.5, source["block_0"])}
    moved, _ = jax.jit(lambda k: train.train_expert(expert, k, other, data))(jax.random.key(0))
    assert not np.array_equal(moved["classifier"]["bias"][-1], path["classifier"]["bias"][-1])


def test_classifier_expert_never_differentiates_the_backbone():
    """The features are inputs of its loss; breaks when the cost of a full step comes back."""

    def refuse(*_):
        raise AssertionError("the backbone was differentiated")

    @jax.custom_vjp
    def opaque(features):
        return features

    opaque.defvjp(lambda x: (x, None), refuse)
    network = _network()
    guarded = dataclasses.replace(network, embed=lambda p, x: opaque(network.embed(p, x)))
    expert = train.make_classifier_expert(guarded, RECIPE, _jitter, COUNTS)
    source = jax.tree.map(lambda x: x[0], _sources(1))
    state, frozen = expert.init(jax.random.key(0), source)
    jax.eval_shape(expert.run_epoch, jax.random.key(0), jnp.int32(0), state, frozen, _data())


@pytest.mark.parametrize("threshold", [0.1, 0.9])
def test_max_norm_bounds_the_class_vectors_after_each_epoch(threshold):
    """The bound is that of the start; breaks when it follows the weights or projects the bias."""
    data, source = _data(), jax.tree.map(lambda x: x[0], _sources(1))
    recipe = dataclasses.replace(RECIPE, learning_rate=1.0)
    free, bounded = (
        _make("classifier", recipe, max_norm=on, max_norm_threshold=threshold)
        for on in (False, True)
    )
    norms = np.linalg.norm(source["classifier"]["kernel"], axis=0)
    bound = norms.min() + threshold * (norms.max() - norms.min())
    paths = [
        jax.jit(lambda k, e=expert: train.train_expert(e, k, source, data)[0])(jax.random.key(0))
        for expert in (free, bounded)
    ]
    lengths = [np.linalg.norm(path["classifier"]["kernel"], axis=1) for path in paths]
    assert (lengths[0][1:].max(axis=1) > 1.01 * bound).all()
    np.testing.assert_allclose(lengths[1][0], norms, rtol=1e-6)  # the start is not projected
    assert (lengths[1][1:] <= 1.0001 * bound).all()
    # The first epoch is the same but for the projection, the bias exactly.
    first = [jax.tree.map(lambda x: np.asarray(x[1]), path["classifier"]) for path in paths]
    np.testing.assert_allclose(first[1]["bias"], first[0]["bias"], rtol=1e-4, atol=1e-6)
    scale = np.minimum(1, bound / lengths[0][1])
    np.testing.assert_allclose(first[1]["kernel"], first[0]["kernel"] * scale, rtol=1e-4, atol=1e-6)
