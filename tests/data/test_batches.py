"""Rows of every step: each once per pass, and padding that counts for nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.data import batches
from ltdd_jax.types import Batch

# Rows, batch size; even, uneven, one batch, a batch larger than the data, a single row.
SIZES = [(12, 4), (10, 4), (7, 7), (5, 100), (1, 1), (9, 1)]


def _present(batch: Batch):
    """Rows with weight, step by step."""
    indices, weights = np.asarray(batch.indices), np.asarray(batch.weights)
    return [rows[weight > 0] for rows, weight in zip(indices, weights, strict=True)]


def _check(batch: Batch, num_rows):
    """Asserts dtypes, valid rows (also of padding) and weights that make a mean."""
    assert batch.indices.dtype == jnp.int32 and batch.weights.dtype == jnp.float32
    assert batch.indices.shape == batch.weights.shape
    indices, weights = np.asarray(batch.indices), np.asarray(batch.weights)
    assert indices.min() >= 0 and indices.max() < num_rows
    for weight in weights:
        count = (weight > 0).sum()
        np.testing.assert_allclose(weight[weight > 0], 1 / count, rtol=1e-6)
        assert (weight >= 0).all()


@pytest.mark.parametrize(("num_rows", "batch_size"), SIZES)
def test_cut_stream_keeps_order_and_rows(num_rows, batch_size):
    """Breaks when the short batch is dropped, divided by the full size, or pads with weight."""
    stream = jnp.arange(100, 100 + num_rows, dtype=jnp.int32)[::-1]
    batch = batches.cut_stream(stream, batch_size)
    _check(batch, 100 + num_rows)
    present = _present(batch)
    np.testing.assert_array_equal(np.concatenate(present), stream)
    size = min(batch_size, num_rows)
    assert len(present) == batches.num_batches(num_rows, size)
    assert [len(rows) for rows in present[:-1]] == [size] * (len(present) - 1)
    assert batch.indices.shape[1] == size


@pytest.mark.parametrize(("num_rows", "batch_size"), SIZES)
def test_an_epoch_visits_every_row_once(num_rows, batch_size):
    batch = batches.shuffle_epoch(jax.random.key(0), num_rows, batch_size)
    _check(batch, num_rows)
    present = _present(batch)
    np.testing.assert_array_equal(np.sort(np.concatenate(present)), np.arange(num_rows))
    assert len(present[-1]) == (num_rows - 1) % min(batch_size, num_rows) + 1
    if num_rows > 5:
        other = batches.shuffle_epoch(jax.random.key(1), num_rows, batch_size)
        assert not np.array_equal(batch.indices, other.indices)


@pytest.mark.parametrize(("num_rows", "batch_size"), SIZES)
def test_chunks_are_passes_with_the_short_chunk_first(num_rows, batch_size):
    """The reference takes the last chunk of a permutation first.

    Breaks when the remainder comes last, a pass leaves a row out, or is not newly shuffled.
    """
    size = min(batch_size, num_rows)
    per_pass = -(-num_rows // size)
    batch = batches.draw_chunks(jax.random.key(0), num_rows, batch_size, 4 * per_pass)
    _check(batch, num_rows)
    assert batch.indices.shape == (4 * per_pass, size)
    present, passes = _present(batch), []
    for begin in range(0, 4 * per_pass, per_pass):
        chunks = present[begin : begin + per_pass]
        passes.append(np.concatenate(chunks))
        np.testing.assert_array_equal(np.sort(passes[-1]), np.arange(num_rows))
        assert len(chunks[0]) == (num_rows - 1) % size + 1
        assert all(len(chunk) == size for chunk in chunks[1:])
    if num_rows > 4:
        assert len({tuple(rows.tolist()) for rows in passes}) == 4


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 8])
def test_left_over_chunks_are_dropped(num_steps):
    """Breaks when a shorter student sees other rows than the start of a longer one."""
    whole = batches.draw_chunks(jax.random.key(0), 10, 4, 9)
    part = batches.draw_chunks(jax.random.key(0), 10, 4, num_steps)
    chex.assert_trees_all_equal(part, jax.tree.map(lambda x: x[:num_steps], whole))


def test_weights_make_the_mean_of_the_rows_that_are_there():
    values = jnp.arange(10.0) ** 2
    batch = batches.draw_chunks(jax.random.key(3), 10, 4, 7)
    means = (values[batch.indices] * batch.weights).sum(axis=1)
    expected = [np.mean(np.asarray(values)[rows]) for rows in _present(batch)]
    np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_rows_are_equally_likely_in_every_place():
    """Breaks when the shuffle is biased or does not depend on the key."""
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.jit(jax.vmap(lambda key: batches.draw_chunks(key, 5, 2, 3).indices))(keys)
    assert drawn.shape == (3000, 3, 2)
    for place in ((0, 0), (1, 0), (2, 1)):
        counts = np.bincount(np.asarray(drawn)[:, *place], minlength=5)
        assert np.abs(counts - 600).max() < 5 * np.sqrt(600)


def test_vmap_and_jit_equal_single_calls():
    for function in (
        lambda key: batches.shuffle_epoch(key, 10, 4),
        lambda key: batches.draw_chunks(key, 10, 4, 5),
    ):
        keys = jax.random.split(jax.random.key(0), 3)
        batched = jax.jit(jax.vmap(function))(keys.copy())
        for i in range(3):
            one = jax.tree.map(lambda x, i=i: x[i], batched)
            chex.assert_trees_all_equal(one, function(keys.copy()[i]))
