"""Trajectories of images that hold several pictures (`trajectory.partition`).

What `mosaic` does has tests of its own (tests/data/test_mosaic).
"""

import itertools

import jax
import numpy as np
import optax
import pytest

from ltdd_jax.data import mosaic
from ltdd_jax.distill import state, step
from ltdd_jax.types import UserError
from tests.distill import iterations, tasks
from tests.golden_files import relative_error

FACTOR = 2
NUM_CELLS = FACTOR**2


def plain_gradient(synthetic, pairs):
    """(loss, gradient) of one iteration on a set whose images are what a student sees."""
    tx = optax.sgd(1.0)
    made = step.make_distill_step(
        iterations.make_network(), iterations.make_phases(), tx, lambda key, x: x
    )
    before = state.init_state(jax.random.key(0), synthetic, tx)
    after, metrics = jax.jit(made)(before, pairs)
    moved = jax.tree.map(lambda x, y: x - y, before.synthetic, after.synthetic)
    return metrics["loss"], moved


def test_gradient_is_that_of_the_enlarged_pictures_pulled_back():
    """Breaks when students see images whole, labels go to other pictures, or a part is lost."""
    synthetic, pairs = iterations.make_set(), iterations.make_pairs()
    shown = synthetic.replace(
        images=mosaic.expand(synthetic.images, FACTOR),
        label_logits=np.tile(synthetic.label_logits, (NUM_CELLS, 1)),
    )
    loss, of_pictures = plain_gradient(shown, pairs)
    _, pull_back = jax.vjp(lambda x: mosaic.expand(x, FACTOR), synthetic.images)
    expected = (
        pull_back(of_pictures.images)[0],
        of_pictures.label_logits.reshape(NUM_CELLS, *synthetic.label_logits.shape).sum(axis=0),
        of_pictures.step_size,
    )
    tx = optax.sgd(1.0)
    made = step.make_distill_step(
        iterations.make_network(), iterations.make_phases(), tx, lambda key, x: x, partition=FACTOR
    )
    before = state.init_state(jax.random.key(0), synthetic, tx)
    after, metrics = jax.jit(made)(before, pairs)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    for name, wanted in zip(("images", "label_logits", "step_size"), expected, strict=True):
        found = getattr(before.synthetic, name) - getattr(after.synthetic, name)
        assert relative_error(found, wanted) < 1e-4, name


def test_a_batch_is_drawn_among_all_pictures():
    """Breaks when only the first pictures of the images are ever seen, or a batch has four times
    as many as it was asked to have."""
    seen = []

    def record(key, images):
        seen.append(images.shape)
        return images

    tx, phases = optax.sgd(1.0), iterations.make_phases(batch_size=3)
    made = step.make_distill_step(iterations.make_network(), phases, tx, record, partition=FACTOR)
    before = state.init_state(jax.random.key(0), iterations.make_set(), tx)
    states = [before]
    for _ in range(12):
        states.append(jax.jit(made)(states[-1], iterations.make_pairs())[0])
    assert {shape[0] for shape in seen} == {3}
    moved = [
        np.abs(mosaic.split(b.synthetic.images - a.synthetic.images, FACTOR)).max(axis=(1, 2, 3))
        for a, b in itertools.pairwise(states)
    ]
    assert np.any(moved, axis=0).all() and not np.all(moved)


def make_start(task, **fields):
    method = tasks.make_method("dam_ed", task, trajectory__partition=FACTOR, **fields)
    return method, method.start()


def find_pictures(task, image):
    """Rows of the training images that the cells of an image are made of."""
    small = mosaic.shrink(task.images, FACTOR, "linear")
    cells = np.asarray(mosaic.split(image[None], FACTOR))
    distances = np.abs(small[None] - cells[:, None]).max(axis=(2, 3, 4))
    assert (distances.min(axis=1) < 1e-5).all()
    return distances.argmin(axis=1)


def test_first_pictures_are_those_of_a_larger_set_and_share_the_mean_of_their_logits():
    """Breaks when cells are of several classes, or a label is of other pictures than its own."""
    task = tasks.make_task(side=8, class_counts=(40, 30, 9))
    images = {"trajectory__initial_images": "correct", "trajectory__scanned_experts": "all"}
    method, start = make_start(task, **images)
    assert method.partition == FACTOR and start.images.shape == (6, 8, 8, 1)
    larger = tasks.make_method("dam_ed", task, distill__ipc=NUM_CELLS * tasks.IPC, **images)
    logits = np.asarray(larger.start().label_logits).reshape(3, -1, 3)
    pictures = np.asarray(larger.start().images)
    for row, label in enumerate(method.labels):
        rows = find_pictures(task, np.asarray(start.images[row]))
        assert (task.labels[rows] == label).all()
        place = row % tasks.IPC + tasks.IPC * np.arange(NUM_CELLS)
        of_class = pictures.reshape(3, -1, 8, 8, 1)[label]
        np.testing.assert_array_equal(task.images[rows], of_class[place])
        np.testing.assert_allclose(
            start.label_logits[row], logits[label, place].mean(axis=0), atol=1e-5
        )


@pytest.mark.parametrize("images", ["real", "noise"])
def test_other_first_images_fill_the_cells_as_well(images):
    """Breaks when a kind of start leaves cells empty or all alike."""
    _, start = make_start(tasks.make_task(side=8), trajectory__initial_images=images)
    cells = np.asarray(mosaic.split(start.images, FACTOR))
    assert start.images.shape == (6, 8, 8, 1) and np.isfinite(start.label_logits).all()
    assert (cells.std(axis=(1, 2, 3)) > 0.1).all()
    assert not np.array_equal(cells[0], cells[6])


def test_a_batch_of_pictures_is_counted():
    """Breaks when a plan takes four times the pictures for the images alone."""
    task, larger = tasks.make_task(side=8), {"trajectory__batch_size": 100}
    one, four = (
        tasks.make_method("dam_ed", task, trajectory__partition=factor, **larger)
        for factor in (1, FACTOR)
    )
    assert four.flops == NUM_CELLS * one.flops and four.bytes > one.bytes
    same, fixed = (
        tasks.make_method("dam_ed", task, trajectory__partition=factor) for factor in (1, FACTOR)
    )
    assert fixed.flops == same.flops


def test_images_that_cannot_be_cut_are_refused():
    """Breaks when the last pixels of an image would be lost."""
    task = tasks.make_task(side=8)
    with pytest.raises(UserError, match=r"--config\.trajectory\.partition=3 .* 8 x 8 pixels"):
        tasks.make_method("dam_ed", task, trajectory__partition=3)
