"""The class-aware sampler: the reference's order structure, without its mutable state."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.data import class_balanced
from ltdd_jax.types import UserError
from tests.golden_files import load_golden


def check_structure(epochs, labels, group_size):
    """Asserts that consecutive epochs, from the very first, follow the sampler's definition.

    Breaks when a group mixes classes, a round of groups misses a class, an image comes again
    before its class is exhausted, or a cycle restarts with the epoch.
    """
    num_classes = labels.max() + 1
    groups = []  # of all epochs; the part of a cut group that was lost is -1
    for epoch in epochs:
        padding = -len(epoch) % group_size
        groups.append(np.pad(epoch, (0, padding), constant_values=-1).reshape(-1, group_size))
    groups = np.concatenate(groups)
    classes = labels[groups[:, 0]]
    assert np.all((labels[groups] == classes[:, None]) | (groups < 0))
    for start in range(0, len(groups), num_classes):
        turn = classes[start : start + num_classes]
        assert len(np.unique(turn)) == len(turn)
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        drawn = groups[classes == label].ravel()
        for start in range(0, len(drawn), len(members)):
            turn = drawn[start : start + len(members)]
            known = turn[turn >= 0]
            assert len(np.unique(known)) == len(known) and np.isin(known, members).all()


@functools.partial(jax.jit, static_argnums=(2, 3))
def _stream(key, epoch, counts, group_size=4):
    return class_balanced.epoch_stream(key, epoch, counts, group_size)


def _streams(counts, num_epochs, group_size=4, seed=0):
    return [
        np.asarray(_stream(jax.random.key(seed), jnp.int32(epoch), counts, group_size))
        for epoch in range(num_epochs)
    ]


@pytest.mark.golden
def test_golden_streams_pass_the_same_checks_as_ours():
    golden = load_golden("class_aware_sampler")
    labels, counts = golden["labels"], tuple(golden["counts"].tolist())
    assert class_balanced.epoch_length(counts) == golden["epoch_length"]
    check_structure([golden["epoch1"], golden["epoch2"]], labels, 4)
    ours = _streams(counts, 2)
    check_structure(ours, labels, 4)
    assert [len(epoch) for epoch in ours] == [len(golden["epoch1"]), len(golden["epoch2"])]


@pytest.mark.parametrize(
    ("counts", "group_size"),
    [
        ((7, 3, 1), 4),  # a cut group, classes smaller than a group
        ((8, 8), 4),
        ((5, 2, 4, 1, 3), 1),
        ((9, 4), 7),
        ((6,), 4),
        ((2, 10, 3), 40),  # a group longer than the epoch
    ],
)
def test_structure_over_many_epochs(counts, group_size):
    labels = np.repeat(np.arange(len(counts)), counts)
    epochs = _streams(counts, 6, group_size)
    assert all(epoch.dtype == np.int32 for epoch in epochs)
    assert {len(epoch) for epoch in epochs} == {class_balanced.epoch_length(counts)}
    check_structure(epochs, labels, group_size)


def test_the_checks_reject_wrong_streams():
    counts = (7, 3, 1)
    labels = np.repeat(np.arange(3), counts)
    good = _streams(counts, 2)
    swapped = good[0].copy()
    swapped[[0, 4]] = swapped[[4, 0]]
    repeated = good[0].copy()
    first = np.flatnonzero(labels[repeated] == 0)[:2]
    repeated[first[1]] = repeated[first[0]]
    for bad in ([swapped, good[1]], [repeated, good[1]], [good[0], good[0]]):
        with pytest.raises(AssertionError):
            check_structure(bad, labels, 4)


@pytest.mark.parametrize("counts", [(40, 12, 5), (24, 9, 2, 1, 7)])
def test_classes_are_equally_frequent_when_the_length_allows(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    for epoch in _streams(counts, 3):
        np.testing.assert_array_equal(np.bincount(labels[epoch]), [max(counts)] * len(counts))


def test_every_first_image_of_a_class_is_equally_likely():
    """Also the pairs of first images; breaks when the shuffle is biased."""
    keys = jax.random.split(jax.random.key(0), 4000)
    first = jax.jit(jax.vmap(lambda key: class_balanced.epoch_stream(key, 1, (4, 1))[:8]))(keys)
    first = np.asarray(first)
    images = first[first < 4].reshape(4000, 4)
    counts = np.unique(images, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert np.abs(counts - 4000 / 24).max() < 5 * np.sqrt(4000 / 24)


def test_streams_of_classes_epochs_and_keys_differ():
    first, second = _streams((32, 32), 2)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, _streams((32, 32), 1, seed=1)[0])
    images = [first[first < 32], first[first >= 32] - 32]
    assert not np.array_equal(*images)


def test_any_epoch_can_be_computed_by_itself():
    """Breaks when an epoch depends on having computed the ones before it."""
    counts = (10, 3)
    keys, epochs = jax.random.split(jax.random.key(7), 3), jnp.array([5, 0, 1234])
    stream = functools.partial(class_balanced.epoch_stream, class_counts=counts)
    batched = jax.jit(jax.vmap(jax.vmap(stream, (None, 0)), (0, None)))(keys.copy(), epochs)
    for i in range(3):
        for j, epoch in enumerate(epochs):
            np.testing.assert_array_equal(batched[i, j], _stream(keys.copy()[i], epoch, counts))


def test_an_empty_class_is_refused():
    with pytest.raises(UserError, match="class 1 has no training image"):
        class_balanced.epoch_stream(jax.random.key(0), 0, (3, 0, 2))


def test_second_call_compiles_nothing():
    run = jax.jit(
        chex.assert_max_traces(lambda k, e: class_balanced.epoch_stream(k, e, (9, 4)), n=1)
    )
    for epoch in range(3):
        run(jax.random.key(epoch), jnp.int32(epoch))
