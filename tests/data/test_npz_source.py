"""The user's own arrays: what is read, and one sentence for whatever does not fit."""

import zipfile

import numpy as np
import pytest

from ltdd_jax.data import npz_source, sources
from ltdd_jax.types import UserError


def make_arrays(**changes):
    """Two classes with ten images each; a change to None leaves an array out."""
    generator = np.random.default_rng(0)
    arrays = {
        "images": generator.integers(0, 256, (20, 4, 5, 3), np.uint8),
        "labels": np.arange(20) % 2,
        "test_images": generator.integers(0, 256, (6, 4, 5, 3), np.uint8),
        "test_labels": np.arange(6) // 3,
        "class_names": np.array(["cat", "dog"]),
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


@pytest.fixture
def load(tmp_path):
    def load(content=None, **changes):
        path = tmp_path / "own.npz"
        if content is None:
            np.savez_compressed(path, **make_arrays(**changes))
        else:
            path.write_bytes(content)
        return sources.load_splits("npz", path=str(path), warn=lambda text: None)

    return load


def test_arrays_come_back(load):
    """Breaks when an array is transposed, a split swapped, or a type lost."""
    arrays, sets = make_arrays(), load()
    for split, prefix in (("train", ""), ("test", "test_")):
        np.testing.assert_array_equal(sets[split].images, arrays[f"{prefix}images"])
        np.testing.assert_array_equal(sets[split].labels, arrays[f"{prefix}labels"])
        assert (sets[split].images.dtype, sets[split].labels.dtype) == (np.uint8, np.int32)
        assert sets[split].class_names == ("cat", "dog")


def test_greyscale_without_channel_axis_and_names(load):
    sets = load(
        images=make_arrays()["images"][..., 0],
        test_images=make_arrays()["test_images"][..., :1],
        labels=(np.arange(20) % 2).astype(np.uint8),
        class_names=None,
    )
    assert sets["train"].images.shape == (20, 4, 5, 1)
    assert sets["test"].images.shape == (6, 4, 5, 1)
    assert sets["train"].class_names == ("0", "1")


def test_last_fifth_of_every_class_is_held_out(tmp_path):
    """Breaks when train and test share an image, or a class has no test image."""
    arrays = make_arrays(test_images=None, test_labels=None, labels=np.int64([0] * 3 + [1] * 17))
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    warnings = []
    sets = sources.load_splits("npz", path=str(path), warn=warnings.append)
    np.testing.assert_array_equal(sets["test"].images, arrays["images"][[2, 17, 18, 19]])
    assert sets["test"].labels.tolist() == [0, 1, 1, 1]
    assert sets["train"].class_counts().tolist() == [2, 14]
    assert "last fifth" in warnings[0]


@pytest.mark.parametrize("has_test", [True, False])
def test_test_arrays_are_read_only_if_asked_for(tmp_path, has_test):
    """Breaks when the test set is looked at by who asked for the training images alone."""
    path, many = tmp_path / "own.npz", np.full((500, 4, 5, 3), 77, np.uint8)
    test = {"test_images": many, "test_labels": np.arange(500) % 2}
    np.savez(path, **make_arrays(**(test if has_test else dict.fromkeys(test))))
    expected = sources.load_splits("npz", path=str(path), warn=lambda text: None)["train"]
    if has_test:  # damage what is not to be read
        content, pixels = path.read_bytes(), many.tobytes()
        assert content.count(pixels) == 1
        path.write_bytes(content.replace(pixels, bytes(len(pixels))))
        with pytest.raises(UserError, match=r"no intact \.npz file"):
            sources.load_splits("npz", path=str(path))
    found = sources.load_splits("npz", ("train",), path=str(path), warn=lambda text: None)
    assert found.keys() == {"train"}
    np.testing.assert_array_equal(found["train"].images, expected.images)
    np.testing.assert_array_equal(found["train"].labels, expected.labels)


_LABELS = np.arange(20) % 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "has no array 'images'"),
        ({"labels": None}, "has no array 'labels'"),
        ({"test_labels": None}, "has no array 'test_labels'"),
        ({"images": np.zeros((20, 4, 5, 3))}, r"images is float64\[20, 4, 5, 3\], but uint8"),
        ({"images": np.zeros((20, 60), np.uint8)}, r"images is uint8\[20, 60\], but uint8\[N"),
        ({"images": np.zeros((0, 4, 5, 3), np.uint8)}, r"images is uint8\[0, 4, 5, 3\]"),
        ({"images": np.zeros((19, 4, 5, 3), np.uint8)}, "19 images and 20 labels in labels"),
        ({"test_images": np.zeros((6, 5, 4, 3), np.uint8)}, r"\[4, 5, 3\] and test_images \[5, 4"),
        ({"labels": _LABELS.astype(float)}, r"labels is float64\[20\], but a one-dimensional"),
        ({"labels": _LABELS == 1}, r"labels is bool\[20\]"),
        ({"labels": _LABELS[:, None]}, r"labels is int64\[20, 1\]"),
        ({"labels": _LABELS - 1}, "labels go down to -1"),
        ({"labels": _LABELS + 1}, "labels go up to 2, but there are 2 classes"),
        ({"test_labels": np.arange(6)}, "labels go up to 5, but there are 2 classes"),
        ({"labels": _LABELS * 10**9, "class_names": None}, "go up to 1000000000 for 20 images"),
        ({"labels": np.zeros(20, int), "test_labels": np.zeros(6, int), "class_names": None},
         "has one class only"),
        ({"class_names": np.array(["cat", "cat"])}, "a name twice"),
        ({"class_names": np.array(["cat", "d\nog"])}, "signs that cannot be printed"),
        ({"class_names": np.array(["cat", "dog"], object)}, "class_names is object"),
        ({"images": np.array([None] * 20)}, "images is object"),
        ({"test_images": None, "test_labels": None, "labels": np.int64([0] * 19 + [1])},
         "class 'dog' has 1 images, but two are needed"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_named(changes, message, load):
    with pytest.raises(UserError, match=message):
        load(**changes)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_cannot_be_drawn_are_refused(load, channels):
    """Breaks when arrays with transparency end in a traceback once the set is distilled."""
    train, test = (np.zeros((n, 4, 5, channels), np.uint8) for n in (20, 6))
    with pytest.raises(UserError, match=f"images of 'npz' have {channels} channels, but grey"):
        load(images=train, test_images=test)


def test_file_that_is_no_npz(load, tmp_path):
    for content in (b"", b"no archive", b"PK\x03\x04 cut off"):
        with pytest.raises(UserError, match=r"own.npz is no intact .npz file .*numpy.savez"):
            load(content)
    load()
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[200:260] = bytes(255 - b for b in content[200:260])
    with pytest.raises(UserError, match=r"own.npz is no intact .npz file"):
        load(bytes(content))


def test_announced_size_is_refused_before_it_is_allocated(tmp_path):
    """A header of a hundred bytes can speak of petabytes."""
    path = tmp_path / "own.npz"
    np.savez(path, **make_arrays(test_images=None, test_labels=None))
    huge = tmp_path / "huge.npz"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(huge, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "images.npy":
                content = content.replace(b"(20, 4, 5, 3)", b"(2000000,9999,9999,3)")
                content = content.replace(b" " * 8, b"", 1)
            new.writestr(name, content)
    with pytest.raises(UserError, match=r"needs about 2999\S+ GB of memory .*smaller images"):
        sources.load_source("npz", "train", path=str(huge))


def test_quick_check_reads_headers_only(tmp_path, monkeypatch):
    """Breaks when checking takes as long as reading."""
    np.savez(tmp_path / "own.npz", **make_arrays())
    monkeypatch.setattr(npz_source.np.lib.format, "read_array", None)
    sources.check_source("npz", path=str(tmp_path / "own.npz"))
    np.savez(tmp_path / "own.npz", **make_arrays(labels=np.zeros(20)))
    with pytest.raises(UserError, match="labels is float64"):
        sources.check_source("npz", path=str(tmp_path / "own.npz"))
