"""DC and DSA against NumPy, finite differences and a loop written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.distill import gradient_distance
from tests.distill import linear, tasks

COUNTS = (4, 3, 1)
IPC = 2


def make_gradients(seed, scale=1.0):
    """Of a small network with a convolution, norm and linear layer."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "norm": {"scale": (4,)},
              "classifier": {"kernel": (5, 3), "bias": (3,)}}  # fmt: skip
    return jax.tree.map(
        lambda shape: (scale * rng.normal(size=shape)).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def distance_by_loops(a, b):
    total = 0.0
    for layer in ("conv", "classifier"):
        x, y = (np.asarray(g[layer]["kernel"], np.float64) for g in (a, b))
        for o in range(x.shape[-1]):
            u, v = x[..., o].ravel(), y[..., o].ravel()
            total += 1 - u @ v / (np.sqrt(u @ u) * np.sqrt(v @ v) + 1e-6)
    return total


def test_distance_equals_loops_over_rows_and_ignores_vectors():
    """Breaks when rows are inputs instead of outputs, or biases and norms count."""
    a, b = make_gradients(0), make_gradients(1)
    found = float(gradient_distance.cosine_distance(a, b))
    assert found == pytest.approx(distance_by_loops(a, b), rel=1e-5)
    b["conv"]["bias"] += 5
    b["norm"]["scale"] *= -3
    assert float(gradient_distance.cosine_distance(a, b)) == found


def test_distance_is_of_directions_and_bounded_by_twice_the_rows():
    a, rows = make_gradients(0), 4 + 3
    cosine = gradient_distance.cosine_distance
    assert float(cosine(a, jax.tree.map(lambda x: 3 * x, a))) == pytest.approx(0, abs=1e-5)
    assert float(cosine(a, jax.tree.map(lambda x: -x, a))) == pytest.approx(2 * rows, rel=1e-5)
    for seed in range(5):
        assert 0 <= float(cosine(a, make_gradients(seed + 1))) <= 2 * rows


def test_a_gradient_of_zero_has_a_derivative():
    """Breaks when a dead unit makes the images NaN."""
    zeros = jax.tree.map(jnp.zeros_like, make_gradients(0))
    found = jax.grad(gradient_distance.cosine_distance)(zeros, make_gradients(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def make_method(task, **fields):
    prefix = {f"gradient_matching__{name}": value for name, value in fields.items()}
    return tasks.make_method("dc", task, distill__ipc=IPC, **prefix)


def start(method):
    return method.init(jax.random.key(0), method.start())


def weight_gradient(kernel, images, label, weights, bias=0.0):
    """(p - y) x^T of softmax regression, [F, K]."""
    flat = np.asarray(images, np.float64).reshape(len(images), -1)
    residual = linear.softmax(flat @ kernel + bias)
    residual[:, label] -= 1
    return flat.T @ (residual * np.asarray(weights, np.float64)[:, None])


def objective(kernel, images, task, batch, bias=0.0):
    """Sum over classes of the distance between the gradients of real and synthetic images."""
    total = 0.0
    for label in range(len(COUNTS)):
        real = task.images[batch.indices[label]]
        target = weight_gradient(kernel, real, label, batch.weights[label], bias)
        own = images.reshape(len(COUNTS), IPC, -1)[label]
        made = weight_gradient(kernel, own, label, np.full(IPC, 1 / IPC), bias)
        for o in range(target.shape[1]):
            u, v = target[:, o], made[:, o]
            total += 1 - u @ v / (np.sqrt(u @ u) * np.sqrt(v @ v) + 1e-6)
    return total


@pytest.fixture(scope="module")
def two_steps():
    """(task, kernel, method, states before and after two steps of one network, batches)."""
    task, kernel, _ = linear.make_task(COUNTS)
    method = make_method(task, image_steps=2, training_epochs=3, image_lr=0.5, batch_size=4,
                         training_batch_size=100, network_lr=0.3)  # fmt: skip
    step, states, batches = jax.jit(method.step), [start(method)], []
    for i in range(2):
        batches.append(method.read(i))
        states.append(step(states[-1], batches[-1], real=task.images)[0])
    return task, kernel, method, states, batches


def test_images_follow_the_gradient_of_the_distance(two_steps):
    """The first velocity is the gradient, here by finite differences; the second adds half of it.

    Breaks when padding counts in a small class, the real gradient is differentiated too, or the
    images are not moved against the gradient.
    """
    task, kernel, _, states, batches = two_steps
    first, second = states[1], states[2]
    images = states[0].synthetic.images
    expected = linear.differentiate(lambda x: objective(kernel, x, task, batches[0]), images)
    np.testing.assert_allclose(first.velocity, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(first.synthetic.images, images - 0.5 * first.velocity, atol=1e-6)
    np.testing.assert_allclose(
        second.synthetic.images, first.synthetic.images - 0.5 * second.velocity, atol=1e-6
    )
    params = {k: np.asarray(v, np.float64) for k, v in first.params["classifier"].items()}
    expected = linear.differentiate(
        lambda x: objective(params["kernel"], x, task, batches[1], params["bias"]),
        first.synthetic.images,
    )
    np.testing.assert_allclose(
        second.velocity - 0.5 * first.velocity, expected, atol=2e-3 * np.abs(expected).max()
    )


def test_the_network_is_trained_on_the_new_images_between_two_steps(two_steps):
    """Three epochs of one batch each: plain gradient descent, written out.

    Breaks when the network is trained on the images before the step, with momentum or decay, or
    after the last step of a network.
    """
    _, kernel, _, states, _ = two_steps
    images = np.asarray(states[1].synthetic.images, np.float64).reshape(len(COUNTS) * IPC, -1)
    labels = np.repeat(np.arange(len(COUNTS)), IPC)
    weights, bias = kernel.copy(), np.zeros(len(COUNTS))
    for _ in range(3):
        residual = linear.softmax(images @ weights + bias) - np.eye(len(COUNTS))[labels]
        weights -= 0.3 * images.T @ residual / len(labels)
        bias -= 0.3 * residual.mean(axis=0)
    for state in states[1:]:
        np.testing.assert_allclose(state.params["classifier"]["kernel"], weights, atol=1e-5)
        np.testing.assert_allclose(state.params["classifier"]["bias"], bias, atol=1e-5)


def test_a_new_network_comes_after_the_last_step_of_one():
    """Breaks when networks live on, or are renewed at every step."""
    task, _, _ = linear.make_task(COUNTS, fresh=True)
    method = make_method(task, num_networks=2, image_steps=2, training_epochs=1, batch_size=4)
    assert method.num_iterations == 4
    step, states = jax.jit(method.step), [start(method)]
    for i in range(3):
        states.append(step(states[-1], method.read(i), real=task.images)[0])
    zeros = jax.tree.map(jnp.zeros_like, states[0].params)
    for i in range(3):
        other = step(states[i].replace(params=zeros), method.read(i), real=task.images)[0]
        same = np.array_equal(other.synthetic.images, states[i + 1].synthetic.images)
        assert same == (i != 1), "only the second step of a network needs the one before"
    first, third = (states[i].params["classifier"]["kernel"] for i in (1, 3))
    assert np.abs(first - third).max() > 0.1


def test_real_and_synthetic_images_are_augmented_alike():
    """The same images on both sides are at distance 0; breaks when DSA is not Siamese, or off."""
    task, _, _ = linear.make_task((IPC, IPC, IPC), augmented=True)
    method = make_method(task, augmented=True, initial_images="real", batch_size=IPC)
    _, metrics = jax.jit(method.step)(start(method), method.read(0), real=task.images)
    assert float(metrics["loss"]) < 1e-3
    task, _, _ = linear.make_task((IPC, IPC, IPC), augment_siamese=tasks.jitter)
    method = make_method(task, augmented=True, initial_images="real", batch_size=IPC)
    _, metrics = jax.jit(method.step)(start(method), method.read(0), real=task.images)
    assert float(metrics["loss"]) > 1e-2, "the augmentation of the task is used"


def test_first_images_are_noise_or_real_and_repeat_in_a_small_class():
    task = tasks.make_task(class_counts=COUNTS)
    real = make_method(task, initial_images="real").start().images
    of = [int(np.abs(task.images - x).sum(axis=(1, 2, 3)).argmin()) for x in np.asarray(real)]
    np.testing.assert_array_equal(task.images[of], real)
    np.testing.assert_array_equal(task.labels[of], np.repeat(np.arange(3), IPC))
    assert of[0] != of[1] and of[4] == of[5]
    noise = np.asarray(make_method(task, initial_images="noise").start().images)
    assert abs(noise.std() - 1) < 0.2 and len(np.unique(noise)) == noise.size
