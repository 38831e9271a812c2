"""DREAM: its distance in NumPy, its representatives, and its steps in pixels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.distill import dream, gradient_distance
from tests.distill import tasks
from tests.distill.test_gradient_matching import make_gradients


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
    np.testing.assert_allclose(after, low + (high - low) * np.clip(pixels, 0, 1), atol=1e-5)
    assert np.abs(plain[1].velocity[1]).max() > 1e-3


def test_images_are_kept_in_the_range_of_pixels(case):
    low, high = (float(x[0]) for x in case.task.input_range)
    wild = 100 * np.asarray(case.method.start().images)
    images = np.asarray(case.take_steps(1, wild)[1].synthetic.images)
    assert images.min() >= low - 1e-5 and images.max() <= high + 1e-5
    np.testing.assert_allclose(images[wild > 50], high, atol=1e-5)
    np.testing.assert_allclose(images[wild < -50], low, atol=1e-5)


def test_networks_are_trained_and_renewed(case):
    """Breaks when the network is matched untrained, or lives on beyond its inner steps."""
    states = case.take_steps(3)
    assert [int(s.network.step) for s in states] == [0, 2, 4, 2]
    kernels = [s.network.params["block_0"]["conv"]["kernel"] for s in states]
    assert 0 < np.abs(kernels[2] - kernels[1]).max() < 0.1 < np.abs(kernels[3] - kernels[2]).max()


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
