"""Trajectories of images that hold several pictures (`trajectory.partition`).

What `mosaic` does has tests of its own (tests/data/test_mosaic).
"""

import dataclasses
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


def take_step(synthetic, pairs, **options):
    """(loss, gradient) of one iteration with full batches and without augmentation."""
    phases = iterations.make_phases()
    if options.get("target_labels"):
        phases = (dataclasses.replace(phases[0], matched="all"),)
    tx, network = optax.sgd(1.0), iterations.make_network()
    made = step.make_distill_step(network, phases, tx, lambda key, images: images, **options)
    before = state.init_state(jax.random.key(0), synthetic, tx)
    after, metrics = jax.jit(made)(before, pairs[: len(phases)])
    return metrics["loss"], jax.tree.map(lambda x, y: x - y, synthetic, after.synthetic)


@pytest.mark.parametrize("target_labels", [False, True])
def test_gradient_is_that_of_the_enlarged_pictures_pulled_back(target_labels):
    """Breaks when students see images whole, labels go to other pictures, a part is lost, or the
    target snapshot is asked about whole images."""
    synthetic, pairs = iterations.make_set(), iterations.make_pairs()
    if target_labels:
        target = iterations.make_network().init(jax.random.key(9))
        pairs = (dataclasses.replace(pairs[0], target=target),)
    shown = synthetic.replace(
        images=mosaic.expand(synthetic.images, FACTOR),
        label_logits=np.tile(synthetic.label_logits, (NUM_CELLS, 1)),
    )
    loss, of_pictures = take_step(shown, pairs, target_labels=target_labels)
    _, pull_back = jax.vjp(lambda x: mosaic.expand(x, FACTOR), synthetic.images)
    of_labels = of_pictures.label_logits.reshape(NUM_CELLS, *synthetic.label_logits.shape)
    expected = of_pictures.replace(
        images=pull_back(of_pictures.images)[0], label_logits=of_labels.sum(axis=0)
    )
    found_loss, found = take_step(synthetic, pairs, target_labels=target_labels, partition=FACTOR)
    np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
    assert relative_error(found.images, expected.images) < 1e-3
    assert relative_error(found.step_size, expected.step_size) < 1e-3
    if target_labels:
        assert not np.any(found.label_logits)
    else:
        assert relative_error(found.label_logits, expected.label_logits) < 1e-3


def test_a_batch_is_drawn_among_all_pictures():
    """Breaks when only the first pictures of the images are ever seen, or a batch has four times
    as many as it was asked to have."""
    seen = []

    def record(key, images):
        seen.append(images.shape)
        return images

    made, init = iterations.make_step(
        iterations.make_phases(batch_size=3), augment=record, partition=FACTOR
    )
    run, states = jax.jit(made), [init()]
    for _ in range(12):
        states.append(run(states[-1], iterations.make_pairs())[0])
    assert {shape[0] for shape in seen} == {3}
    changes = np.stack(
        [
            np.asarray(mosaic.split(b.synthetic.images - a.synthetic.images, FACTOR))
            for a, b in itertools.pairwise(states)
        ]
    )
    assert np.isfinite(changes).all()
    moved = np.abs(changes).max(axis=(2, 3, 4)) > 0
    assert moved.any(axis=0).all() and not moved[0].all()


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
        place = row % tasks.IPC * NUM_CELLS + np.arange(NUM_CELLS)
        of_class = pictures.reshape(3, -1, 8, 8, 1)[label]
        np.testing.assert_array_equal(task.images[rows], of_class[place])
        np.testing.assert_allclose(
            start.label_logits[row], logits[label, place].mean(axis=0), atol=1e-5
        )


def test_an_image_of_a_class_that_is_short_holds_different_pictures():
    """Breaks when a class of few pictures fills each of its images with copies of one."""
    task = tasks.make_task(side=8, class_counts=(40, 4, 2))
    _, start = make_start(task, trajectory__initial_images="real", distill__ipc=4)
    for row in range(12):
        rows = find_pictures(task, np.asarray(start.images[row]))
        assert (task.labels[rows] == row // 4).all()
        assert len(set(rows)) == (4, 4, 2)[row // 4]


def test_noise_fills_every_cell():
    """Breaks when cells are left empty, or are all alike."""
    _, start = make_start(tasks.make_task(side=8), trajectory__initial_images="noise")
    cells = np.asarray(mosaic.split(start.images, FACTOR))
    assert (cells.std(axis=(1, 2, 3)) > 0.1).all() and np.isfinite(start.label_logits).all()
    assert len(np.unique(cells[:, 0, 0, 0])) == len(cells) == 24


@pytest.mark.parametrize(("labels", "known"), [("hard", 30.0), ("soft", 0.0)])
def test_labels_of_pictures_that_no_expert_labels(labels, known):
    """Breaks when hard labels are divided, or an unknown class has other labels than without."""
    task = tasks.make_task(side=8)
    unknown = dataclasses.replace(task, network=make_blind(task.network))
    fields = {"trajectory__labels": labels, "trajectory__initial_images": "correct"}
    method, start = make_start(unknown, **fields)
    expected = known * np.eye(3)[method.labels]
    rows = slice(None) if labels == "hard" else slice(tasks.IPC, None)  # all are of class 0
    np.testing.assert_allclose(start.label_logits[rows], expected[rows], atol=1e-5)


def make_blind(network):
    """A network for which every picture is of the first class."""
    shift = 1e6 * np.eye(3, dtype=np.float32)[:1]
    blind = lambda params, images: network.apply(params, images) + shift  # noqa: E731
    return dataclasses.replace(network, apply=blind)


def test_a_batch_of_pictures_is_counted():
    """Breaks when a plan takes four times the pictures for the images alone, or no memory."""
    task = tasks.make_task(side=8)

    def make(factor, batch_size):
        fields = {"trajectory__batch_size": batch_size, "trajectory__partition": factor}
        return tasks.make_method("dam_ed", task, **fields)

    assert make(FACTOR, 100).flops == NUM_CELLS * make(1, 100).flops
    same, fixed = make(1, 4), make(FACTOR, 4)
    assert fixed.flops == same.flops and fixed.bytes > same.bytes


def test_images_that_cannot_be_cut_are_refused():
    """Breaks when the last pixels of an image would be lost."""
    task = tasks.make_task(side=8)
    with pytest.raises(UserError, match=r"--config\.trajectory\.partition=3 .* 8 x 8 pixels"):
        tasks.make_method("dam_ed", task, trajectory__partition=3)
