"""DREAM: its distance in NumPy, its representatives, and its steps in pixels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import training
from ltdd_jax.data import cutmix
from ltdd_jax.distill import dream, gradient_distance
from tests.distill import linear, tasks
from tests.distill.test_gradient_matching import make_gradients, weight_gradient
from tests.distill.test_idm import expand


def test_distance_is_of_convolutions_alone():
    """Breaks when the classifier's gradient, which a balanced and a long-tailed network differ in
    most, or a bias or norm counts.
    """
    a, b = make_gradients(0), make_gradients(1)
    expected = np.square(np.float64(a["conv"]["kernel"]) - b["conv"]["kernel"]).sum()
    np.testing.assert_allclose(gradient_distance.convolution_distance(a, b), expected, rtol=1e-5)
    for layer, name in (("classifier", "kernel"), ("classifier", "bias"), ("norm", "scale")):
        b[layer][name] += 5
    np.testing.assert_allclose(gradient_distance.convolution_distance(a, b), expected, rtol=1e-5)


def make_one_convolution():
    """(task, kernel [16, 2]): softmax regression as a convolution that covers the image."""
    task, kernel, _ = linear.make_task((3, 2))

    def apply(params, images):
        products = images.reshape(len(images), -1) @ params["conv"]["kernel"].reshape(16, 2)
        return products + params["conv"]["bias"][None]

    network = dataclasses.replace(
        task.network,
        apply=apply,
        train=lambda params, images, weights=None: (apply(params, images), params),
    )
    conv = {"kernel": jnp.asarray(kernel.reshape(4, 4, 1, 2), jnp.float32), "bias": jnp.zeros(2)}
    return dataclasses.replace(task, network=network), kernel, {"conv": conv}


def make_loss(task, **settings):
    settings = {"augment_one": "", "augment_always": "", "partition": 1} | settings
    return dream.make_class_loss(task, 2, {"decoded_batch_size": 8} | settings)


def test_loss_of_a_class_and_its_gradient():
    """Squared distance of the gradients, and its own by finite differences.

    Breaks when images are of another class, a padded representative counts, cells are matched as
    they are stored, or the gradients are of sums.
    """
    task, kernel, params = make_one_convolution()
    own, real, weights = task.images[:2], task.images[2:5], np.array([0.5, 0.5, 0])

    def exact(x):
        shown = expand(x)
        target = weight_gradient(kernel, real, 1, weights)
        made = weight_gradient(kernel, shown, 1, np.full(8, 1 / 8))
        return np.square(target - made).sum()

    value, gradient = jax.jit(jax.value_and_grad(make_loss(task, partition=2), argnums=1))(
        params, own, 1, real, np.float32(weights), jax.random.key(0)
    )
    assert float(value) == pytest.approx(exact(np.float64(own[..., 0])), rel=1e-4)
    expected = linear.differentiate(exact, own[..., 0])
    np.testing.assert_allclose(gradient[..., 0], expected, atol=1e-3 * np.abs(expected).max())


def test_real_and_synthetic_pictures_are_augmented_alike_and_drawn_where_there_are_many():
    """Breaks when only one side is augmented, or always the first pictures are matched."""
    task, _, params = make_one_convolution()
    own, weights = jnp.asarray(task.images[:2]), jnp.full(2, 0.5)

    def evaluate(real, count=1, **settings):
        loss = jax.jit(make_loss(task, **settings))
        arguments = params, own, 0, real, jnp.full(len(real), 1 / len(real))
        return {round(float(loss(*arguments, jax.random.key(i))), 5) for i in range(count)}

    assert evaluate(own, 5, augment_always="color_cutout", augment_one="flip") == {0.0}
    other = jnp.asarray(task.images[3:])
    assert evaluate(other, augment_always="color") != evaluate(other)
    one_by_one = set()
    for row in range(2):
        single = jnp.stack([own[row]] * 2)
        value = make_loss(task)(params, single, 0, other, weights, jax.random.key(0))
        one_by_one.add(round(float(value), 5))
    np.testing.assert_allclose(
        sorted(evaluate(other, 12, decoded_batch_size=1)), sorted(one_by_one), atol=2e-5
    )


def test_network_learns_both_labels_of_mixed_images(monkeypatch):
    """Heavy-ball steps on batches whose labels are a quarter their own, written out.

    Breaks when labels and shares change places, or momentum or decay are lost.
    """
    task, kernel, params = make_one_convolution()

    def mix(key, images, chance):
        assert chance == 0.5
        return images, jnp.array([2, 0, 1]), jnp.float32(0.25)

    monkeypatch.setattr(cutmix, "cutmix", mix)
    tx = training.make_optimizer(momentum=0.9, weight_decay=0.1)
    train = dream.make_training(task.network, tx, {"cutmix_chance": 0.5, "network_lr": 0.2})
    rows = np.array([[0, 3, 4], [1, 2, 3]])
    batches = dream.real_batches.pad(list(rows))
    state = jax.jit(train)(
        jax.random.key(0), training.init_train_state(params, tx), batches, task.images, task.labels
    )
    moved = np.zeros_like(kernel)
    bias, moved_bias = np.zeros(2), np.zeros(2)
    for batch in rows:
        flat = np.float64(task.images[batch]).reshape(3, -1)
        hot = np.eye(2)[task.labels[batch]]
        residual = linear.softmax(flat @ kernel + bias) - 0.25 * hot - 0.75 * hot[[2, 0, 1]]
        moved = 0.9 * moved + flat.T @ residual / 3 + 0.1 * kernel
        moved_bias = 0.9 * moved_bias + residual.mean(axis=0) + 0.1 * bias
        kernel, bias = kernel - 0.2 * moved, bias - 0.2 * moved_bias
    found = state.params["conv"]
    np.testing.assert_allclose(found["kernel"].reshape(16, 2), kernel, atol=1e-5)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-5)


def test_representatives_are_of_their_class_and_whole_in_a_small_one():
    """Breaks when rows of the class and rows of the data set are exchanged."""
    task = tasks.make_task(class_counts=(8, 3, 1))
    choose = jax.jit(dream.make_chooser(task, 4, 10))
    params = task.network.init(jax.random.key(0))
    rows = np.asarray(choose(jax.random.key(1), params, jnp.asarray(task.images)))
    np.testing.assert_array_equal(task.labels[rows], np.repeat(np.arange(3), 4).reshape(3, 4))
    assert len(set(rows[0])) == 4
    assert set(rows[1][:3]) == {8, 9, 10} and rows[2][0] == 11


def make_method(task):
    return tasks.make_method(
        "dream", task, distill__ipc=1, dream__augment_always="", dream__cluster_interval=2,
        dream__inner_steps=2, dream__training_images=6, dream__training_batch_size=3,
        dream__image_lr=0.02, dream__num_clusters=6,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A task with its method, whose compiled step the tests share."""

    task: Any
    method: Any
    step: Any

    def take_steps(self, count, images=None):
        constants = {name: jnp.asarray(x) for name, x in self.method.constants().items()}
        start = self.method.start()
        start = start if images is None else start.replace(images=jnp.asarray(images))
        states = [self.method.init(jax.random.key(0), start)]
        for i in range(count):
            states.append(self.step(states[-1], self.method.read(i), **constants)[0])
        return states


def make_case(task):
    method = make_method(task)
    return Case(task, method, jax.jit(method.step))


@pytest.fixture(scope="module")
def case():
    return make_case(tasks.make_task(class_counts=(6, 3)))


def scale(task, factor, shift):
    """The same task with network input that is an affine map of what it was."""
    network = task.network

    def undo(function):
        return lambda params, images: function(params, (images - shift) / factor)

    network = dataclasses.replace(network, apply=undo(network.apply), embed=undo(network.embed))
    low, high = task.input_range
    return dataclasses.replace(
        task,
        network=network,
        images=factor * task.images + shift,
        input_range=(factor * low + shift, factor * high + shift),
    )


@pytest.mark.slow
def test_steps_are_of_pixels_whatever_the_normalisation(case):
    """Breaks when the published rate is applied to normalised images: the steps would be wider."""
    plain = case.take_steps(2)
    start = 4 * plain[0].synthetic.images + 0.5  # rounding can choose other representatives
    scaled = make_case(scale(case.task, np.float32(4), np.float32(0.5)))
    other = scaled.take_steps(2, start)
    moved = np.abs(plain[2].synthetic.images - plain[0].synthetic.images).max()
    assert moved > 1e-3
    np.testing.assert_allclose(
        (other[2].synthetic.images - 0.5) / 4, plain[2].synthetic.images, atol=0.02 * moved
    )
    before, after = (s.synthetic.images[1] for s in plain[:2])  # of the class that moves last
    low, high = (float(x[0]) for x in case.task.input_range)
    pixels = (before - low) / (high - low) - 0.02 * plain[1].velocity[1]
    np.testing.assert_allclose(after, low + (high - low) * pixels, atol=1e-5)
    assert np.abs(plain[1].velocity[1]).max() > 1e-3


def test_every_network_begins_with_images_in_the_range_of_pixels(case):
    """Breaks when images are never brought back, or after every one of its inner steps (two)."""
    low, high = (float(x[0]) for x in case.task.input_range)
    wild = 100 * np.asarray(case.method.start().images)
    states = case.take_steps(3, wild)
    seen = [(np.asarray(s.synthetic.images)[1] - low) / (high - low) for s in states]
    speeds = [np.asarray(s.velocity)[1] for s in states]  # of the class whose turn is the second
    for step, begins in ((1, True), (2, False), (3, True)):
        before = np.clip(seen[step - 1], 0, 1) if begins else seen[step - 1]
        in_first_turn = 0.5 * speeds[step - 1]  # by its momentum
        moved = 0.02 * (in_first_turn + speeds[step])
        np.testing.assert_allclose(seen[step], before - moved, atol=1e-5)
    assert seen[1].max() > 1.001 or seen[1].min() < -0.001, "a step leaves the range"


def test_networks_are_trained_and_renewed(case):
    """Breaks when the network is matched untrained, or lives on beyond its inner steps."""
    states = case.take_steps(3)
    assert [int(s.network.step) for s in states] == [0, 2, 4, 2]
    kernels = [s.network.params["block_0"]["conv"]["kernel"] for s in states]
    assert 0 < np.abs(kernels[2] - kernels[1]).max() < 0.1 < np.abs(kernels[3] - kernels[2]).max()


def test_representatives_are_chosen_at_intervals(case):
    """Two iterations each; breaks when old ones are matched, or new ones are chosen every time."""
    states = case.take_steps(3)
    constants = {name: jnp.asarray(x) for name, x in case.method.constants().items()}
    for i, is_kept in enumerate((False, True, False)):
        others = states[i].replace(queries=jnp.array([[0] * 6, [6] * 6], jnp.int32))
        found = case.step(others, case.method.read(i), **constants)[0].synthetic.images
        assert np.array_equal(found, states[i + 1].synthetic.images) != is_kept


def test_first_images_are_representatives_shrunk_into_the_cells():
    """Breaks when cells are averaged instead of thinned out, or mix classes."""
    task = tasks.make_task(class_counts=(7, 3))
    images = np.asarray(make_method(task).start().images)[..., 0]
    thin = task.images[:, ::2, ::2, 0]
    for label, image in enumerate(images):
        rows = []
        for i in range(2):
            for j in range(2):
                cell = image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                rows.append(int(np.abs(thin - cell).max(axis=(1, 2)).argmin()))
                np.testing.assert_array_equal(thin[rows[-1]], cell)
        assert (task.labels[rows] == label).all()
        assert len(set(rows)) == min(4, task.class_counts[label])
