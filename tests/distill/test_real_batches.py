"""Which real images an iteration sees."""

import jax
import numpy as np

from ltdd_jax.distill import real_batches

LABELS = np.repeat(np.arange(3), (9, 4, 1))


def draw(iteration=0, count=5):
    generator = real_batches.make_generator(jax.random.key(3), iteration)
    return real_batches.draw_of_classes(generator, real_batches.list_classes(LABELS, 3), count)


def test_each_class_gives_different_images_of_its_own_and_fewer_where_it_is_small():
    """Breaks when a rare class is padded with copies that count, or drawn with repetition."""
    batch = draw()
    assert batch.indices.shape == batch.weights.shape == (3, 5)
    assert (batch.indices.dtype, batch.weights.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(LABELS[batch.indices], np.repeat(np.arange(3), 5).reshape(3, 5))
    for label, size in enumerate((5, 4, 1)):
        present = batch.weights[label] > 0
        assert len(set(batch.indices[label][present])) == present.sum() == size
        np.testing.assert_allclose(batch.weights[label][present], 1 / size, rtol=1e-6)
    assert draw(count=100).indices.shape == (3, 9)


def test_rows_depend_on_the_iteration_alone():
    np.testing.assert_array_equal(draw(4).indices, draw(4).indices)
    assert (draw(4).indices[0] != draw(5).indices[0]).any()
    seen = {int(row) for i in range(20) for row in draw(i).indices[0]}
    assert seen == set(range(9))


def test_natural_batches_are_of_all_images():
    """Breaks when batches are class-balanced: the tail has to be as rare as it is."""
    generator = np.random.default_rng(0)
    batch = real_batches.draw_of_all(generator, 14, 7, 200)
    assert all(len(set(rows)) == 7 for rows in batch.indices)
    share = (LABELS[batch.indices] == 0).mean()
    assert abs(share - 9 / 14) < 0.03
    assert real_batches.draw_of_all(generator, 14, 100, 2).indices.shape == (2, 14)


def test_a_pass_sees_every_image_once_and_is_cut():
    """Breaks when a batch of the pass repeats rows, or a short one counts its padding."""
    generator = np.random.default_rng(0)
    batch = real_batches.cut_pass(generator, 14, 4, 100)
    rows = [r for one, weights in zip(*vars(batch).values(), strict=True) for r in one[weights > 0]]
    assert sorted(rows) == list(range(14))
    np.testing.assert_allclose(batch.weights.sum(axis=1), 1, rtol=1e-6)
    assert real_batches.cut_pass(generator, 14, 4, 2).indices.shape == (2, 4)
