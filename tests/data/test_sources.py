"""The one door to the data: digits, dispatch, fingerprints."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from ltdd_jax import fields
from ltdd_jax.data import fashion_mnist, long_tail, sources
from ltdd_jax.types import Interrupted, UserError


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
        (("svhn", "train"), "data.source 'svhn' is unknown; use one of digits, cifar10"),
        (("tfds:", "train"), "data.source 'tfds:' is unknown"),
        (("digits", "validation"), "split 'validation' is unknown"),
        (("folder", "train"), "--config.data.path=PATH"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        sources.load_source(*arguments)


def test_registered_sources_are_what_the_config_allows():
    """Breaks when a new source cannot be chosen, or one that can be chosen does not exist."""
    assert set(sources.SOURCES) == set(fields.SOURCES)


@pytest.mark.parametrize("name", ["cifar10", "tfds:cifar10", "tfds:cifar10:3.0.2"])
def test_cifar10_has_its_constants_and_test_order_under_every_name(name):
    """Breaks when the set is another problem because it was read by another name."""
    source = sources.find_source(name)
    assert source.constants == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert source.order_test is long_tail.permute_test


def test_only_cifar10_orders_its_test_set():
    for name in (*sources.SOURCES, "tfds:cifar100", "tfds:svhn_cropped"):
        assert (sources.find_source(name).order_test is None) == (name != "cifar10")


def test_channel_constants():
    """Customary where there are any, else measured, greyscale too."""
    images = np.random.default_rng(3).integers(0, 99, (60, 4, 4, 3)).astype(np.uint8)
    cifar = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for name in ("cifar100", "tfds:cifar100", "tfds:cifar10_1"):
        assert sources.channel_constants(name, images) == cifar
    assert sources.channel_constants("tfds:tiny_imagenet_100_32", images) == imagenet
    mean, std = sources.channel_constants("folder", images)
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-9)
    black = np.zeros((3, 2, 2, 1), np.uint8)
    assert sources.channel_constants("digits", black) == ((0.0,), (1.0,))


def _add_source(monkeypatch, read):
    monkeypatch.setitem(sources.SOURCES, "made_up", sources.Source(read=read))


def test_any_error_of_a_reader_is_one_sentence(monkeypatch):
    """Breaks when a library's exception reaches the user as a traceback; a stop must pass."""

    def fail(error):
        def read(request, splits):
            raise error

        return read

    _add_source(monkeypatch, fail(RecursionError("too deep\nin there")))
    with pytest.raises(UserError, match=r"'made_up' cannot be read \(RecursionError: too deep\)"):
        sources.load_source("made_up", "train")
    for error in (Interrupted(2), MemoryError(), KeyboardInterrupt()):
        _add_source(monkeypatch, fail(error))
        with pytest.raises(type(error)):
            sources.load_source("made_up", "train")


def test_one_class_is_refused_from_every_source(monkeypatch):
    arrays = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int32), ("all",)
    _add_source(monkeypatch, lambda request, splits: dict.fromkeys(splits, arrays))
    with pytest.raises(UserError, match="'made_up' has one class only"):
        sources.load_splits("made_up")


def test_mistakes_are_found_without_jax(tmp_path):
    """Breaks when an import makes the user wait for the answer to a wrong path."""
    code = (
        "import sys\n"
        "from ltdd_jax.data import sources\n"
        "from ltdd_jax.errors import UserError\n"
        "try:\n"
        f"    sources.check_source('folder', path={str(tmp_path / 'nowhere')!r})\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "print({'jax', 'flax', 'tensorflow_datasets'} & set(sys.modules))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, modules = found.stdout.splitlines()
    assert "nowhere does not exist" in message
    assert modules == "set()"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"path": "x"}, "data.path=x is not read by the source 'digits'"),
        ("npz", {}, "source 'npz' needs it; set --config.data.path"),
        ("folder", {"path": "/nowhere"}, "/nowhere does not exist"),
        ("npz", {"path": "/nowhere"}, "/nowhere is no file"),
        ("cifar100", {"data_dir": "/nowhere"}, "data.prepare cifar100"),
        ("fashion_mnist", {"data_dir": "/nowhere"}, "four IDX files as --config.data.path"),
        ("fashion_mnist", {"path": "/nowhere"}, "no file train-images-idx3-ubyte"),
    ],
)
def test_quick_check_finds_what_is_not_there(name, options, message, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", "/nowhere")
    with pytest.raises(UserError, match=message):
        sources.check_source(name, **options)
    with pytest.raises(UserError):
        sources.load_splits(name, **options)


def test_digits_are_not_resized():
    assert len(sources.load_source("digits", "test", image_size=8).images) == 500
    with pytest.raises(UserError, match=r"data.image_size=16, but the images of 'digits' are 8x8"):
        sources.load_source("digits", "test", image_size=16)
