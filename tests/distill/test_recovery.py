"""A step of each recovery against NumPy, what the batches are, and where the images start."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.data import normalize
from ltdd_jax.distill import Teacher, observers, recovery, statistics
from ltdd_jax.types import UserError
from tests.distill import tasks

K, IPC = 3, tasks.IPC
WHOLE = {"recovery__view_min_area": 1.0, "recovery__flip": False, "recovery__jitter": 0}


def give_teachers(**kinds):
    """The smallest task with these networks of each kind."""
    return dataclasses.replace(
        tasks.make_task(),
        teachers=kinds.__getitem__,
        networks=lambda kind: tuple(teacher.network for teacher in kinds[kind]),
    )


@functools.cache
def make_task():
    """With an observer whose running statistics are not those of a new network."""
    task = tasks.make_task()
    (observer,) = task.teachers("observer")
    rng = np.random.default_rng(4)
    own = jax.tree.map(
        lambda x: rng.uniform(0.5, 1.5, x.shape).astype(x.dtype), observer.params["statistics"]
    )
    changed = Teacher(observer.network, {**observer.params, "statistics": own})
    return give_teachers(observer=(changed,), teacher=task.teachers("teacher"))


@functools.cache
def prepare(name, **settings):
    method = tasks.make_method(name, make_task(), **settings)
    step = jax.jit(functools.partial(method.step, **method.constants()))
    return method, step, method.init(jax.random.key(0), method.start())


@pytest.mark.parametrize(
    ("order", "batch_size", "expected"),
    [
        ("class_major", 6, [[0, 1, 2, 3, 4, 5]]),
        ("class_major", 100, [[0, 1, 2, 3, 4, 5]]),
        ("class_major", 2, [[0, 1], [2, 3], [4, 5]]),
        ("class_major", 4, [[0, 1, 2], [3, 4, 5]]),
        ("class_major", 5, [[0, 1, 2], [3, 4, 5]]),
        ("one_per_class", 100, [[0, 2, 4], [1, 3, 5]]),
        ("one_per_class", 2, [[0, 2], [2, 4], [1, 3], [3, 5]]),
    ],
)
def test_batches(order, batch_size, expected):
    """Breaks when a batch mixes up classes and images, or leaves a row out."""
    found = recovery.cut_batches(3, 2, order, batch_size)
    assert found.tolist() == expected and found.dtype == np.int32


@functools.cache
def watch():
    (observer,) = make_task().teachers("observer")
    return functools.partial(jax.jit(observer.network.observe), observer.params)


def spread(maps):
    """Mean and variance over all axes but the last, [2, D]."""
    maps = np.asarray(maps, np.float64).reshape(-1, maps.shape[-1])
    return np.array([maps.mean(axis=0), maps.var(axis=0)])


def to_patches(maps):
    """[B, 8, 8, C] -> [B, 4, 4, C, 4 patches]."""
    return np.stack([maps[:, r : r + 4, c : c + 4] for r in (0, 4) for c in (0, 4)], axis=-1)


def distance(target, found):
    return np.linalg.norm(target - found, axis=1).sum()


def expect_loss(name, images, labels):
    """The first step's loss in NumPy, on maps [B, 8, 8, C]; the network is the package's own."""
    task = make_task()
    logits, inputs = watch()(np.concatenate([images, task.images]))
    logits = np.asarray(logits[:K], np.float64)
    classification = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(K), labels])
    kept = task.teachers("observer")[0].params["statistics"]["block_0"]["norm"]
    running = np.array([kept["mean"], kept["variance"]])
    conv, norm = (np.asarray(inputs[f"block_0/{layer}"]) for layer in ("conv", "norm"))
    if name == "sre2l":
        return classification, 10 * distance(running, spread(norm[:K]))
    total, counts = 0.0, np.array(task.class_counts)
    for maps, weight, own in ((conv, 10, None), (to_patches(conv), 10, None), (norm, 1, running)):
        of_class = [maps[K:][task.labels == k] for k in range(K)]
        if name == "edc":  # the mean over images; the tail counts as often as it comes
            classes = np.array([np.mean([spread(m) for m in of], axis=0) for of in of_class])
            overall = np.average(classes, axis=0, weights=counts) if own is None else own
        else:
            classes = np.array([spread(of) for of in of_class])
            overall = classes.mean(axis=0)
        average = 0.2 * spread(maps[:K])
        of_batch = classes[labels].mean(axis=0)
        total += weight * (distance(overall, average) + distance(of_batch, average)) / 2
    return classification, total


@pytest.mark.parametrize("name", ["sre2l", "edc", "rldd"])
def test_loss_of_the_first_step_by_hand(name):
    """Which layers, statistics, classes and weights make the loss of each method.

    Breaks when RLDD follows the frequent classes, EDC pools variances, SRe2L averages over steps,
    or another layer counts as the first.
    """
    method, step, state = prepare(name, **WHOLE)
    _, metrics = step(state, method.read(0))
    rows = np.array([0, 2, 4] if name == "sre2l" else [0, 1, 2])
    images = np.asarray(state.synthetic.images)[rows]
    classification, expected = expect_loss(name, images, method.labels[rows])
    np.testing.assert_allclose(metrics["cross_entropy"], classification, rtol=1e-4)
    np.testing.assert_allclose(metrics["statistics"], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], classification + 0.01 * expected, rtol=1e-4)


def test_first_step_is_adam_on_the_cross_entropy_of_one_batch():
    """Its size is the rate, against the sign of the gradient; then pixels are clipped.

    Breaks when a row outside of the batch moves, the loss is climbed, or pixels leave [0, 1].
    """
    method, step, state = prepare(
        "edc", recovery__statistics_weight=0.0, recovery__layers="norm", **WHOLE
    )
    task = make_task()
    (observer,) = task.teachers("observer")
    start = state.synthetic.images

    def loss(images):
        logs = jax.nn.log_softmax(observer.network.apply(observer.params, images))
        return -logs[np.arange(3), method.labels[:3]].mean()

    direction = -np.sign(jax.jit(jax.grad(loss))(start[:3]))
    after, _ = step(state, method.read(0))
    moved = np.asarray(after.synthetic.images)
    np.testing.assert_array_equal(moved[3:], start[3:])
    low, high = ((x - 0.5) / 0.2 for x in (0, 1))
    np.testing.assert_allclose(
        moved[:3], np.clip(start[:3] + 0.05 * direction, low, high), atol=1e-3
    )


def test_batches_are_finished_one_after_the_other_in_8_bits():
    """Breaks when Adam's moments cross over to the next batch, or the last step is not rounded."""
    method, step, state = prepare("rldd", **WHOLE)
    states = [state]
    for _ in range(method.num_iterations):
        states.append(step(states[-1], {})[0])
    images = [np.asarray(s.synthetic.images) for s in states]
    np.testing.assert_array_equal(images[4][:3], images[2][:3])
    np.testing.assert_array_equal(images[2][3:], images[0][3:])
    pixels = images[4] * 0.2 + 0.5
    np.testing.assert_allclose(pixels * 255, np.rint(pixels * 255), atol=1e-3)
    unfinished = images[1][:3] * 0.2 + 0.5
    assert np.abs(unfinished * 255 - np.rint(unfinished * 255)).max() > 0.1
    fresh, opened = states[0].opt_state, states[3].opt_state
    assert int(opened[0].count) == 1 and int(fresh[0].count) == 0
    # With the first moment of one step alone, m = (1 - 0.5) g, every pixel moves by the rate.
    ratio = np.asarray(opened[0].mu) ** 2 / np.maximum(np.asarray(opened[0].nu), 1e-30)
    np.testing.assert_allclose(ratio[ratio > 0], 0.25 / 0.1, rtol=1e-3)


def test_observers_take_turns():
    """Breaks when every step asks the first observer, or averages are shared between observers."""
    (one,) = make_task().teachers("observer")
    other = Teacher(one.network, jax.tree.map(lambda x: x + np.float32(0.3), one.params))
    task = give_teachers(observer=(one, other))
    method = tasks.make_method("edc", task, recovery__num_steps=4, recovery__layers="norm", **WHOLE)
    step = jax.jit(functools.partial(method.step, **method.constants()))
    state = method.init(jax.random.key(0), method.start())
    apply = jax.jit(one.network.apply)
    for index in range(3):
        before = state
        state, metrics = step(before, {})
        kept, changed = (index + 1) % 2, index % 2
        same = jax.tree.map(np.array_equal, state.averages, before.averages)
        assert all(jax.tree.leaves(same[kept])) and not any(jax.tree.leaves(same[changed]))
        logits = apply((one, other)[changed].params, before.synthetic.images[:3])
        logits, own = np.asarray(logits, np.float64), method.labels[:3]
        expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), own])
        np.testing.assert_allclose(metrics["cross_entropy"], expected, rtol=1e-4)


def test_augmentations_draw_once_for_the_batch():
    """Breaks when images are cropped or moved each on their own."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 1)), jnp.float32)
    batch = jnp.repeat(images, 4, axis=0)
    shifts, views = set(), set()
    settings = {"view_min_area": 0.3, "flip": True, "jitter": 1}
    roll = jax.jit(recovery.make_augment({**settings, "augmentation": "roll"}))
    crop = jax.jit(recovery.make_augment({**settings, "augmentation": "crop"}))
    for seed in range(30):
        for augment, seen in ((roll, shifts), (crop, views)):
            found = np.asarray(augment(jax.random.key(seed), batch))
            assert (found == found[:1]).all()
            seen.add(found[0].tobytes())
    expected = {
        np.roll(np.asarray(images[0]), (i, j), axis=(0, 1)).tobytes()
        for i in (0, 1)
        for j in (0, 1)
    }
    assert shifts == expected and len(views) > 20


def test_real_images_and_noise_at_the_start():
    task = make_task()
    for name, is_real in (("edc", True), ("sre2l", False)):
        images = np.asarray(prepare(name, **WHOLE)[2].synthetic.images)
        for row, image in enumerate(images):
            own = task.images[task.labels == row // IPC]
            assert is_real == any(np.array_equal(image, one) for one in own)


@pytest.mark.parametrize("name", ["rded", "rldd"])
def test_crops_of_whole_pictures_are_those_with_the_least_cross_entropy(name):
    """Of 6, 3 and 1 pictures two each; the only one gives a crop in a second round.

    Breaks when the teacher sees pixels instead of preprocessed input, or the worst are chosen.
    """
    task, section = make_task(), {"rded": "crops", "rldd": "recovery"}[name]
    whole = {f"{section}__min_area": 1.0, f"{section}__crops_per_image": 2}
    start = np.asarray(tasks.make_method(name, task, **whole).start().images)
    (teacher,) = task.teachers("teacher")
    pixels = np.rint(np.clip(task.images * 0.2 + 0.5, 0, 1) * 255)
    given = ((pixels / 255 - 0.5) / 0.2).astype(np.float32)
    logits = np.asarray(jax.jit(teacher.network.apply)(teacher.params, given), np.float64)
    values = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(given)), task.labels]
    for k in range(K):
        rows = np.flatnonzero(task.labels == k)
        best = np.resize(rows[np.argsort(values[rows])], IPC)
        np.testing.assert_allclose(start[k * IPC : (k + 1) * IPC], given[best], atol=1e-4)


def test_only_so_many_pictures_are_looked_at():
    """Breaks when a class's crops come from pictures beyond `images_per_class`."""
    fields = {"crops__min_area": 1.0, "crops__images_per_class": 1, "crops__crops_per_image": 1}
    images = np.asarray(tasks.make_method("rded", make_task(), **fields).start().images)
    assert (images[::IPC] == images[1::IPC]).all()


def test_running_statistics_are_those_of_the_layer():
    """Where it has none, also in a network without batch norms, the real images' serve."""
    params = {"statistics": {"a": {"norm": {"mean": np.ones(2), "variance": np.full(2, 3.0)}}}}
    found = observers.find_running(params, "a/norm")
    assert (found.mean[0], found.variance[0]) == (1, 3)
    assert observers.find_running(params, "a/conv") is None
    assert observers.find_running({}, "a/norm") is None
    classes = {"a/norm": statistics.Moments(np.array([[0.0], [4.0]]), np.array([[1.0], [3.0]]))}
    for own, balanced, mean in ((params, False, 1), (params, True, 2), ({}, False, 1)):
        target = observers.make_targets(classes, own, (3, 1), balanced=balanced, mixture=False)
        assert float(target["a/norm"].overall.mean[0]) == mean


def test_sre2l_reads_no_real_images():
    """Its targets are in the network; breaks when a pass over the data is taken for nothing."""
    task = make_task()
    settings = {"targets": "running", "class_weight": 0.0, "class_statistics": "pooled"}
    settings |= {"variances": "mean"}
    blind = dataclasses.replace(task, images=None)
    constants = observers.make_constants(
        blind, observers.make_observers(blind.networks("observer"), "norm"), settings
    )
    assert list(constants["targets"][0]) == ["block_0/norm"]
    assert isinstance(constants["preprocessing"], normalize.Preprocessing)


def test_a_network_without_norms_is_refused_where_norms_are_followed():
    plain = nets.build("alexnet", image_shape=(32, 32, 1), num_classes=3)
    with pytest.raises(UserError, match=r"recovery\.layers=norm follows; use one such"):
        observers.make_observers([plain], "norm")
    assert len(observers.make_observers([plain], "all")[0].with_patches) == 5
