"""IDM: its queue against a deque, its steps against finite differences and loops in NumPy."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import training
from ltdd_jax.distill import idm
from tests.data.test_mosaic import enlarge_by_loops
from tests.distill import linear, tasks

SECTION = "distribution_matching__"
SETTINGS = {"ce_weight": 0.25, "partition": 2}


def test_queue_equals_a_deque():
    """Breaks when the newest makes room, accuracies are inherited, or free places count."""
    empty = jnp.full(4, -1.0)
    queue = idm.Queue(params=empty, opt_state=empty, appended=jnp.int32(0),
                      hits=jnp.zeros(4), seen=jnp.zeros(4))  # fmt: skip
    expected = collections.deque(maxlen=4)
    for i in range(11):
        queue = queue.append(jnp.float32(i), jnp.float32(10 * i))
        expected.append(i)
        length = int(queue.length)
        assert sorted(np.asarray(queue.params)[:length]) == sorted(expected)
        np.testing.assert_array_equal(queue.opt_state[:length], 10 * queue.params[:length])
        newest = int(np.argmax(queue.params))
        assert float(queue.accuracy[newest]) == 0
        oldest = int(np.argmin(queue.params[:length]))
        assert float(queue.params[oldest]) == expected[0]
        queue = queue.replace(hits=queue.hits.at[newest].set(3), seen=queue.seen.at[newest].set(4))
        assert float(queue.accuracy[newest]) == 75  # percent, as published


def test_members_that_are_trained_differ_and_are_there():
    queue = idm.Queue(params=jnp.zeros(6), opt_state=jnp.zeros(6), appended=jnp.int32(3),
                      hits=jnp.zeros(6), seen=jnp.zeros(6))  # fmt: skip
    found = {tuple(np.asarray(idm._choose_members(jax.random.key(i), queue, 2))) for i in range(60)}
    assert found == {(a, b) for a in range(3) for b in range(3) if a != b}


def expand(images):
    """[S, 4, 4] -> [4 S, 4, 4] by loops."""
    cells = [images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] for i in range(2) for j in range(2)]
    return np.stack([enlarge_by_loops(one, 2) for cell in cells for one in cell])


def objective(own, real, label, kernel, matrix, accuracy):
    """L_c in NumPy; own [S, 4, 4]."""
    shown = expand(np.asarray(own, np.float64)).reshape(4 * len(own), -1) @ matrix
    gap = shown.mean(axis=0) - (real.reshape(len(real), -1) @ matrix).mean(axis=0)
    probabilities = linear.softmax(shown @ kernel)[:, label]
    return gap @ gap - SETTINGS["ce_weight"] * accuracy * np.log(probabilities).mean()


@pytest.mark.parametrize("accuracy", [0.0, 40.0])
def test_loss_of_a_class_and_its_gradient(accuracy):
    """Without accuracy it is DM's on expanded images. Breaks when cells are not enlarged, the
    accuracy is a fraction and not a percentage, or the cross-entropy is of the real images.
    """
    task, kernel, matrix = linear.make_task((3, 2), features=5)
    loss = idm.make_class_loss(task, SETTINGS)
    own, real = task.images[:2], task.images[1:3]
    arguments = (1, jnp.asarray(real), jnp.full(2, 0.5), jax.random.key(0))
    params = task.network.init(jax.random.key(0))
    value, gradient = jax.value_and_grad(
        lambda x: loss(params, jnp.float32(accuracy), x, *arguments)
    )(jnp.asarray(own))

    def exact(x):
        return objective(x, np.float64(real), 1, kernel, matrix, accuracy)

    assert float(value) == pytest.approx(exact(own[..., 0]), rel=1e-4)
    expected = linear.differentiate(exact, own[..., 0])
    np.testing.assert_allclose(gradient[..., 0], expected, atol=1e-3 * np.abs(expected).max())


def make_method(task, ipc=2, **fields):
    fields = {"trained_members": 0, "initial_networks": 1, "queue_size": 1, **fields}
    prefixed = {SECTION + name: value for name, value in fields.items()}
    return tasks.make_method("idm", task, distill__ipc=ipc, **prefixed)


def take_steps(task, method, count=1):
    step, states = jax.jit(method.step), [method.init(jax.random.key(0), method.start())]
    for i in range(count):
        constants = {name: jnp.asarray(x) for name, x in method.constants().items()}
        states.append(step(states[-1], method.read(i), **constants)[0])
    return states


def test_every_class_is_a_step_of_all_images():
    """Two iterations of three classes in turn, written out with finite differences.

    Breaks when the classes are summed into one step, or each has a momentum of its own.
    """
    task, kernel, matrix = linear.make_task((3, 2, 1), features=5)
    method = make_method(task, image_lr=0.02, batch_size=2)
    states = take_steps(task, method, 2)
    images = np.asarray(states[0].synthetic.images, np.float64)[..., 0].reshape(3, 2, 4, 4)
    velocity = np.zeros_like(images)
    for i in range(2):
        batch = method.read(i).matched
        for label, size in enumerate((2, 2, 1)):
            real = np.float64(task.images[batch.indices[label][:size]])
            velocity *= 0.5
            velocity[label] += linear.differentiate(
                lambda x, real=real, label=label: objective(x, real, label, kernel, matrix, 0.0),
                images[label],
            )
            images = images - 0.02 * velocity
        found = np.asarray(states[i + 1].synthetic.images)[..., 0].reshape(images.shape)
        np.testing.assert_allclose(found, images, atol=1e-4)
    assert np.abs(images[0] - images[1]).max() > 0.1


def test_images_follow_one_drawn_network_and_its_accuracy():
    """Two members, one of them zero, and a free place; the loss in NumPy says which was drawn.

    Breaks when always the same is drawn, a free place is, or the accuracy is another's.
    """
    task, kernel, matrix = linear.make_task((3, 2), features=5)
    method = make_method(task, initial_networks=2, queue_size=3, queue_interval=100, batch_size=2,
                         accuracy_interval=0, image_lr=0.0, ce_weight=0.25)  # fmt: skip
    state = method.init(jax.random.key(0), method.start())
    scale = np.array([1, 0, 100], np.float32)[:, None, None]
    params = {"classifier": {**state.queue.params["classifier"]}}
    params["classifier"]["kernel"] = params["classifier"]["kernel"] * scale
    queue = state.queue.replace(
        params=params, hits=jnp.array([1.0, 3.0, 4.0]), seen=jnp.array([4.0, 4.0, 4.0])
    )
    batch = method.read(1).matched
    images = np.asarray(state.synthetic.images, np.float64)[..., 0].reshape(2, 2, 4, 4)
    expected = {
        percent: sum(
            objective(own, np.float64(task.images[rows]), label, own_kernel, matrix, percent)
            for label, (own, rows) in enumerate(zip(images, batch.indices, strict=True))
        )
        for percent, own_kernel in ((25.0, kernel), (75.0, 0 * kernel))
    }
    step, seen = jax.jit(method.step), set()
    for seed in range(12):
        start = state.replace(step=jnp.int32(1), key=jax.random.key(seed), queue=queue)
        _, metrics = step(start, method.read(1), **method.constants())
        percent = float(metrics["network_accuracy"])
        assert float(metrics["loss"]) == pytest.approx(expected[percent], rel=1e-4)
        seen.add(percent)
    assert seen == {25.0, 75.0}


def test_members_are_trained_by_heavy_ball_with_decay_and_counted():
    """Two rounds of two steps on natural batches, written out; the momentum is kept between them.

    Breaks when the optimiser starts anew, padding is counted, or the accuracy is that afterwards.
    """
    task, kernel, _ = linear.make_task((5, 2))
    tx = training.make_optimizer(momentum=0.9, weight_decay=0.1)
    params = task.network.init(jax.random.key(0))
    both = jax.tree.map(lambda x: jnp.stack([x * 0, x]), params)
    queue = idm.Queue(params=both, opt_state=jax.vmap(tx.init)(both),
                      appended=jnp.int32(2), hits=jnp.zeros(2), seen=jnp.zeros(2))  # fmt: skip
    train = jax.jit(idm.make_training(task.network, tx, 0.2))
    method = make_method(task, trained_members=1, training_steps=2, training_batch_size=3)
    weights, bias = kernel.copy(), np.zeros(2)
    moved, hits = [np.zeros_like(weights), np.zeros_like(bias)], 0
    for i in range(2):
        batches = jax.tree.map(lambda x: x[0], method.read(i).trained)
        assert batches.indices.shape == (2, 3)
        queue = train(queue, 1, batches, jnp.asarray(task.images), jnp.asarray(task.labels))
        for rows in batches.indices:
            flat, labels = task.images[rows].reshape(3, -1).astype(np.float64), task.labels[rows]
            logits = flat @ weights + bias
            hits += (logits.argmax(axis=1) == labels).sum()
            residual = (linear.softmax(logits) - np.eye(2)[labels]) / 3
            for j, gradient in enumerate((flat.T @ residual, residual.sum(axis=0))):
                value = (weights, bias)[j]
                moved[j] = 0.9 * moved[j] + gradient + 0.1 * value
                value -= 0.2 * moved[j]
    np.testing.assert_allclose(queue.params["classifier"]["kernel"][1], weights, atol=1e-4)
    np.testing.assert_allclose(queue.params["classifier"]["bias"][1], bias, atol=1e-4)
    assert not np.asarray(queue.params["classifier"]["kernel"][0]).any(), "the other stays"
    np.testing.assert_array_equal(queue.hits, [0, hits])
    np.testing.assert_array_equal(queue.seen, [0, 12])


def test_networks_come_at_intervals_and_accuracies_are_counted_anew():
    """Breaks when the first iteration brings none, or accuracies are never reset."""
    task, _, _ = linear.make_task((5, 2))
    method = make_method(task, initial_networks=2, queue_size=4, queue_interval=3,
                         accuracy_interval=4, trained_members=4, training_steps=1,
                         training_batch_size=5, image_lr=0.0)  # fmt: skip
    states = take_steps(task, method, 5)
    assert [int(s.queue.appended) for s in states] == [2, 3, 3, 3, 4, 4]
    counted = [float(s.queue.seen.max()) for s in states[1:]]
    assert counted[3] > counted[0] and counted[4] <= counted[0] * 2  # afresh in the fifth


def test_first_images_are_four_real_ones_each_made_smaller():
    """Breaks when the cells of an image are of several classes, or the same picture."""
    task = tasks.make_task(side=8, class_counts=(6, 3, 1))
    method = make_method(task, ipc=2)
    assert method.partition == 2
    images = np.asarray(method.start().images)[..., 0]
    small = task.images[..., 0].reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4))
    found = set()
    for row, image in enumerate(images):
        for i in range(2):
            for j in range(2):
                cell = image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                distances = np.abs(small - cell).max(axis=(1, 2))
                assert distances.min() < 1e-5
                assert task.labels[distances.argmin()] == row // 2
                found.add(int(distances.argmin()))
    assert len(found) > 5
