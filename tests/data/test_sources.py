"""The one door to the data: digits, dispatch, fingerprints."""

import dataclasses

import numpy as np
import pytest
from sklearn import datasets

from ltdd_jax.data import sources
from ltdd_jax.types import UserError


def test_digits_are_balanced_disjoint_and_complete():
    train = sources.load_source("digits", "train")
    test = sources.load_source("digits", "test")
    np.testing.assert_array_equal(train.class_counts(), 124)
    np.testing.assert_array_equal(test.class_counts(), 50)
    for split in (train, test):
        assert split.images.dtype == np.uint8
        assert split.images.shape[1:] == (8, 8, 1)
        assert split.labels.dtype == np.int32
        assert (split.images.min(), split.images.max()) == (0, 255)
        assert split.class_names == tuple("0123456789")
    original = datasets.load_digits()
    levels = np.rint(train.images[..., 0] * (16 / 255))
    for label in range(10):
        rows = np.flatnonzero(original.target == label)
        chosen = levels[train.labels == label]
        np.testing.assert_array_equal(chosen, original.images[rows[:124]])
        held_out = np.rint(test.images[test.labels == label][..., 0] * (16 / 255))
        np.testing.assert_array_equal(held_out, original.images[rows[-50:]])


def test_take_and_counts():
    image_set = sources.ImageSet(
        np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), np.int32([0, 2, 0, 2, 2]), ("a", "b", "c")
    )
    assert image_set.num_classes == 3
    np.testing.assert_array_equal(image_set.class_counts(), [2, 0, 3])
    taken = image_set.take(np.array([3, 0]))
    assert taken.images.ravel().tolist() == [3, 0]
    assert taken.labels.tolist() == [2, 0]


def test_fingerprint_sees_every_part():
    """Pixels, order, labels, names, shape and the border between sets each change it."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    base = sources.ImageSet(images, np.int32([0, 1]), ("cat", "dog"))
    variants = [
        dataclasses.replace(base, images=np.where(images == 7, np.uint8(8), images)),
        dataclasses.replace(base, images=images.reshape(2, 2, 3, 2)),
        dataclasses.replace(base, labels=np.int32([1, 0])),
        dataclasses.replace(base, class_names=("catd", "og")),
        base.take(np.array([1, 0])),
    ]
    prints = [sources.fingerprint(base, other) for other in (base, *variants)]
    prints += [sources.fingerprint(base), sources.fingerprint(variants[0], base)]
    assert len(set(prints)) == len(prints)
    assert sources.fingerprint(base.take(np.array([0, 1]))) == sources.fingerprint(base)
    assert len(prints[0]) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet", "train"), "data.source 'imagenet' is unknown; use one of digits, cifar10"),
        (("tfds:", "train"), "data.source 'tfds:' is unknown"),
        (("digits", "validation"), "split 'validation' is unknown"),
        (("folder", "train"), "--config.data.path=PATH"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        sources.load_source(*arguments)


def test_only_folders_are_resized():
    assert len(sources.load_source("digits", "test", image_size=8).images) == 500
    with pytest.raises(UserError, match=r"data.image_size=16, but the images of 'digits' are 8x8"):
        sources.load_source("digits", "test", image_size=16)
