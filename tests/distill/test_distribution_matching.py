"""DM with a linear embedding, where every gradient is known in closed form."""

import dataclasses

import jax
import numpy as np

from tests.distill import linear, tasks

COUNTS = (6, 3, 1)
IPC = 2


def run(task, count=1, **fields):
    prefix = {f"distribution_matching__{name}": value for name, value in fields.items()}
    method = tasks.make_method("dm", task, distill__ipc=IPC, **prefix)
    step, states = jax.jit(method.step), [method.init(jax.random.key(0), method.start())]
    for i in range(count):
        state, metrics = step(states[-1], method.read(i), **method.constants())
        states.append(state)
    return method, states, metrics


def test_every_image_of_a_class_gets_the_same_closed_form_gradient():
    """(2 / IPC) W^T (mean e(X_c) - mean e(R_c)); breaks when the padding of a small class counts,
    sums stand for means, or classes are mixed.
    """
    task, _, matrix = linear.make_task(COUNTS, features=5)
    method, states, _ = run(task, count=3, image_lr=0.7, batch_size=4)
    images = np.asarray(states[0].synthetic.images, np.float64).reshape(3, IPC, -1)
    velocity = np.zeros_like(images)
    for i in range(3):
        batch, gradient = method.read(i), np.zeros_like(images)
        for label, size in enumerate((4, 3, 1)):
            real = task.images[batch.indices[label][:size]].reshape(size, -1)
            gap = images[label].mean(axis=0) @ matrix - real.mean(axis=0) @ matrix
            gradient[label] = 2 / IPC * matrix @ gap
        velocity = 0.5 * velocity + gradient
        images = images - 0.7 * velocity
        found = np.asarray(states[i + 1].synthetic.images).reshape(images.shape)
        np.testing.assert_allclose(found, images, atol=1e-4 * np.abs(images).max())
    before, after = (
        np.asarray(state.synthetic.images).reshape(3, IPC, -1) for state in (states[0], states[-1])
    )
    np.testing.assert_allclose(
        after[:, 0] - after[:, 1], before[:, 0] - before[:, 1], atol=1e-4 * np.abs(after).max()
    )


def whiten_rows(rows):
    """Every feature without its mean over the rows, and in units of its spread."""
    return (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 0.1)


def test_batch_norms_see_all_classes_at_once():
    """The gradient by finite differences through a normalisation over the whole batch.

    Breaks when a class is normalised alone, which leaves nothing of its mean, when running
    statistics normalise, or when the padding of a small class counts.
    """
    task, _, matrix = linear.make_task(COUNTS, features=5)

    def train_embed(params, images, weights=None):
        rows = images.reshape(len(images), -1) @ matrix.astype(np.float32)
        shares = np.full(len(rows), 1 / len(rows), np.float32) if weights is None else weights
        centred = rows - (shares @ rows)[None]
        spread = shares @ centred**2 + np.float32(0.1)
        return centred / jax.numpy.sqrt(spread)[None], params

    network = dataclasses.replace(task.network, has_statistics=True, train_embed=train_embed)
    task = dataclasses.replace(task, network=network)
    method, states, metrics = run(task, image_lr=0.7, batch_size=4)
    batch = method.read(0)
    rows = [batch.indices[label][:size] for label, size in enumerate((4, 3, 1))]
    real = whiten_rows(task.images[np.concatenate(rows)].reshape(8, -1) @ matrix)
    real = np.stack([part.mean(axis=0) for part in np.split(real, (4, 7))])

    def objective(images):
        made = whiten_rows(images.reshape(len(COUNTS) * IPC, -1) @ matrix)
        return np.square(real - made.reshape(len(COUNTS), IPC, -1).mean(axis=1)).sum()

    images = np.asarray(states[0].synthetic.images, np.float64)
    np.testing.assert_allclose(metrics["loss"], objective(images), rtol=1e-4)
    expected = linear.differentiate(objective, images)
    np.testing.assert_allclose(states[1].velocity, expected, atol=1e-3 * np.abs(expected).max())


def test_real_and_synthetic_images_are_augmented_alike():
    """The same images on both sides have the same mean; with numbers of their own they have not."""
    task, _, _ = linear.make_task((IPC, IPC), augmented=True)
    assert float(run(task, batch_size=IPC)[2]["loss"]) < 1e-8
    task, _, _ = linear.make_task((IPC, IPC), augment_siamese=tasks.jitter)
    assert float(run(task, batch_size=IPC)[2]["loss"]) > 1e-2


def test_every_iteration_has_a_new_network():
    """Breaks when one random network is matched for ever; images and batches stay the same."""
    task, _, _ = linear.make_task(COUNTS, fresh=True)
    embed = task.network.classify  # a layer that depends on the parameters
    network = dataclasses.replace(
        task.network, embed=lambda params, x: embed(params, x.reshape(len(x), -1))
    )
    task = dataclasses.replace(task, network=network)
    method, (state, _), _ = run(task, image_lr=0.0)
    step = jax.jit(method.step)
    values = []
    for _ in range(2):
        state, metrics = step(state, method.read(0), real=task.images)
        values.append(float(metrics["loss"]))
    assert abs(values[0] - values[1]) > 1e-4
