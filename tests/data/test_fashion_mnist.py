"""IDX files, packed and not, in the places where they are looked for."""

import gzip
import struct

import numpy as np
import pytest

from ltdd_jax.data import fashion_mnist, sources
from ltdd_jax.types import UserError


def write_files(folder, *, packed: bool):
    """The four files with few images; returns what they hold."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    written = {}
    for stem, num in (("train", 20), ("t10k", 10)):
        images = generator.integers(0, 256, (num, 28, 28), np.uint8)
        labels = (np.arange(num) % 10).astype(np.uint8)
        for part, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            content = header + array.tobytes()
            name = f"{stem}-{part}" + ".gz" * packed
            (folder / name).write_bytes(gzip.compress(content) if packed else content)
        written[stem] = images, labels
    return written


DEBIAN = fashion_mnist.SYSTEM_FOLDER


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", str(tmp_path / "system"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["path", "data_dir", "system"])
def test_files_are_read_where_they_lie(place, packed, tmp_path):
    """Breaks when a header byte counts as a pixel, splits are swapped, or a place is forgotten."""
    folder = tmp_path / {"path": "own", "data_dir": "fashion_mnist", "system": "system"}[place]
    written = write_files(folder, packed=packed)
    options = {"path": {"path": str(folder)}, "data_dir": {"data_dir": str(tmp_path)}}
    sets = sources.load_splits("fashion_mnist", **options.get(place, {}))
    for split, stem in (("train", "train"), ("test", "t10k")):
        np.testing.assert_array_equal(sets[split].images[..., 0], written[stem][0])
        np.testing.assert_array_equal(sets[split].labels, written[stem][1])
        assert sets[split].images.shape[1:] == (28, 28, 1)
    assert sets["train"].class_names[9] == "Ankle boot"


def test_the_folder_is_that_of_the_package():
    """As `dpkg-deb --contents` lists it: breaks when the program looks beside it."""
    assert DEBIAN == "/usr/share/datasets/fashion-mnist"


def test_damaged_files_are_named(tmp_path):
    write_files(tmp_path / "own", packed=False)
    images, labels = (
        tmp_path / "own" / f"train-{part}" for part in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    whole = images.read_bytes()
    for content in (b"", whole[:-1], whole[:10], b"\x1f\x8b" + whole):
        images.write_bytes(content)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte is damaged"):
            sources.load_source("fashion_mnist", "train", path=str(tmp_path / "own"))
    images.write_bytes(whole)
    labels.write_bytes((tmp_path / "own" / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(UserError, match="does not belong to train-images"):
        sources.load_source("fashion_mnist", "train", path=str(tmp_path / "own"))
    labels.unlink()
    with pytest.raises(UserError, match="has no file train-labels-idx1-ubyte"):
        sources.load_source("fashion_mnist", "train", path=str(tmp_path / "own"))
