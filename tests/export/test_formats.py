"""Breaks when a library reads other pixels or labels from an export than the set holds.

Every export is read by the code of its own README.md, which does not use this package.
"""

import dataclasses
import io
import json
import pathlib
import sys
import tarfile
import types

import numpy as np
import pytest
from PIL import Image

import ltdd_jax
from tests.export import distilled

# Format -> packages that write or read it; the test extra has none of these.
NEEDED = {
    "png": ("torchvision",),
    "huggingface": ("pyarrow", "datasets"),
    "torch": ("torch",),
    "tfds": (),
    "webdataset": ("webdataset",),
}


def require(format):
    """Skips where the consumer is not installed."""
    for package in NEEDED[format]:
        pytest.importorskip(package, reason=f"{package} is not installed: the export-test extra")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """`datasets` keeps what it read, by default in the home directory."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    if "datasets" in sys.modules:
        datasets = sys.modules["datasets"]
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("case", distilled.CASES)
@pytest.mark.parametrize("format", NEEDED)
def test_consumer_reads_every_bit(format, case, tmp_path):
    """Breaks when rows or colours change places, a label is rounded or the whitening differs."""
    require(format)
    dataset = distilled.make_set(case)
    folder = ltdd_jax.export_dataset(dataset, format, tmp_path / "out")
    distilled.assert_equal_set(distilled.read_by_readme(folder), dataset)


class ImageFolder:
    """torchvision 0.18's, as far as a README.md uses it: an empty class is an error by default."""

    def __init__(self, root, loader=Image.open, allow_empty=False):
        self.samples, self.loader = [], loader
        for target, path in enumerate(sorted(pathlib.Path(root).iterdir())):
            found = sorted(path.iterdir())
            if not found and not allow_empty:
                raise FileNotFoundError(f"Found no valid file for the classes {path.name}.")
            self.samples += [(str(file), target) for file in found]
        self.targets = [target for _, target in self.samples]

    def __iter__(self):
        return ((self.loader(path), target) for path, target in self.samples)


@pytest.mark.parametrize("case", ["gap", "plain"])
def test_image_folder_reads_a_set_with_an_empty_class(case, tmp_path, monkeypatch):
    """Breaks when the code of README.md fails on it, or asks other sets for a new torchvision."""
    package = types.SimpleNamespace(datasets=types.SimpleNamespace(ImageFolder=ImageFolder))
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", package.datasets)
    dataset = distilled.make_set(case)
    folder = ltdd_jax.export_dataset(dataset, "png", tmp_path / "out")
    distilled.assert_equal_set(distilled.read_by_readme(folder), dataset)
    assert ("allow_empty" in (folder / "README.md").read_text()) == (case == "gap")


def test_image_folder_numbers_the_classes_as_we_do(tmp_path):
    """Breaks when a folder's place in the alphabet is not its label; needs no consumer."""
    dataset = distilled.make_set("colour")
    folder = ltdd_jax.export_dataset(dataset, "png", tmp_path / "out")
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert len(names) == 12
    for label, name in enumerate(names):
        rows = sorted((folder / "images" / name).iterdir())
        wanted = dataset.pixels[dataset.labels == label]
        np.testing.assert_array_equal([np.asarray(Image.open(row)) for row in rows], wanted)


def test_shards_hold_a_picture_a_class_and_facts(tmp_path):
    """The layout by the standard library alone; class names of any script survive."""
    dataset = distilled.make_set("grey")
    folder = ltdd_jax.export_dataset(dataset, "webdataset", tmp_path / "out")
    (path,) = folder.glob("*.tar")
    with tarfile.open(path) as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive}
    assert len(content) == 4 * len(dataset.labels)
    for row, label in enumerate(dataset.labels):
        picture = Image.open(io.BytesIO(content[f"{row:06d}.png"]))
        np.testing.assert_array_equal(np.asarray(picture), dataset.pixels[row, ..., 0])
        assert int(content[f"{row:06d}.cls"]) == label
        facts = json.loads(content[f"{row:06d}.json"])
        assert facts["class_name"] == dataset.class_names[label]
        np.testing.assert_array_equal(
            np.array(facts["soft_label"], np.float32), dataset.label_probabilities[row]
        )


def test_many_images_make_several_shards(tmp_path, monkeypatch):
    from ltdd_jax.export import webdataset

    monkeypatch.setattr(webdataset, "_SHARD_ROWS", 4)
    folder = ltdd_jax.export_dataset(distilled.make_set("grey"), "webdataset", tmp_path / "out")
    sizes = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            sizes.append(len(archive.getnames()) // 4)
    assert sizes == [4, 2]


def test_parquet_names_its_columns_for_hugging_face(tmp_path):
    """Breaks when the classes lose their names or the picture its type."""
    require("huggingface")
    import datasets

    folder = ltdd_jax.export_dataset(distilled.make_set("grey"), "huggingface", tmp_path / "out")
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows.features["label"].names == list(distilled.make_set("grey").class_names)
    assert rows.column_names == ["image", "label", "soft_label", "network_input"]


def test_records_carry_class_names(tmp_path):
    import tensorflow_datasets as tfds

    folder = ltdd_jax.export_dataset(distilled.make_set("grey"), "tfds", tmp_path / "out")
    source = tfds.data_source("distilled", split="train", data_dir=str(folder))
    names = source.dataset_info.features["label"].names
    assert names == list(distilled.make_set("grey").class_names)


def test_records_tell_classes_of_one_name_apart(tmp_path):
    """Breaks when two classes of one name, such as both cranes of ImageNet, are a traceback."""
    import tensorflow_datasets as tfds

    twice = dataclasses.replace(distilled.make_set("grey"), class_names=("crane", "ant", "crane"))
    folder = ltdd_jax.export_dataset(twice, "tfds", tmp_path / "out")
    source = tfds.data_source("distilled", split="train", data_dir=str(folder))
    names = source.dataset_info.features["label"].names
    assert names == ["crane (0)", "ant", "crane (2)"]


def test_long_names_of_classes_are_cut_in_folders(tmp_path):
    """Breaks when a name that no folder can have is called a full disk."""
    long = dataclasses.replace(distilled.make_set("plain"), class_names=("b" * 300, "Ä" * 300))
    folder = ltdd_jax.export_dataset(long, "png", tmp_path / "out")
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert names == ["0_" + "b" * 200, "1_" + "Ä" * 100]


def test_every_folder_says_what_it_was_distilled_for(tmp_path):
    folder = ltdd_jax.export_dataset(distilled.make_set("colour"), "webdataset", tmp_path / "out")
    facts = json.loads((folder / "info.json").read_text())
    assert facts["learning_rate"] == 0.03 and facts["augmentation"] == "flip_crop"
    assert facts["network"] == {"name": "convnet", "width": 8, "depth": 2}
    readme = (folder / "README.md").read_text()
    assert "learning rate\nof 0.03" in readme and "24 distilled images of 12 classes" in readme
