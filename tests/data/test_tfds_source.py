"""Reading prepared TFDS sets: order, and one clear message for whatever is wrong on disk."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest

from ltdd_jax import command_line
from ltdd_jax.data import long_tail, prepare, sources, tfds_source
from ltdd_jax.pipeline import problem
from ltdd_jax.types import UserError
from tests.data import cifar_archive
from tests.pipeline import little, tiny_config

_REAL = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
_needs_real = pytest.mark.skipif(
    not (_REAL / "tfds" / "cifar10").is_dir(), reason=f"no CIFAR-10 in {_REAL}"
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small CIFAR-10, prepared once; tests that damage it copy it."""
    root = tmp_path_factory.mktemp("prepared")
    archive = cifar_archive.make_archive("cifar10", root / "archive.tar.gz", images_per_file=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prepare.BUILDERS, "cifar10", cifar_archive.make_builder(archive))
        prepare.prepare("cifar10", str(root / "data"), str(archive.path))
    return archive, root / "data"


@pytest.fixture
def damaged(prepared, tmp_path):
    """A copy of the prepared set, and its folder."""
    shutil.copytree(prepared[1] / "cifar10", tmp_path / "cifar10")
    return tmp_path, next((tmp_path / "cifar10").iterdir())


def test_original_order_across_blocks(prepared, monkeypatch):
    """A block size that does not divide N: an off-by-one at the block borders would show."""
    archive, data_dir = prepared
    monkeypatch.setattr(tfds_source, "_BLOCK", 7)
    loaded = sources.load_source("cifar10", "train", data_dir=str(data_dir))
    np.testing.assert_array_equal(loaded.images, archive.images["train"])
    np.testing.assert_array_equal(loaded.labels, archive.labels["train"])
    assert (loaded.images.dtype, loaded.labels.dtype) == (np.uint8, np.int32)
    assert loaded.images.flags.writeable


def test_default_data_dir_and_any_set_by_name(prepared, monkeypatch):
    archive, data_dir = prepared
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    loaded = sources.load_source("tfds:cifar10", "test")
    np.testing.assert_array_equal(loaded.images, archive.images["test"])


def test_missing_set_names_the_command(tmp_path, monkeypatch):
    with pytest.raises(UserError) as error:
        sources.load_source("cifar10", "train", data_dir=str(tmp_path))
    assert f"python -m ltdd_jax.data.prepare cifar10 --data_dir={tmp_path}" in str(error.value)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"run: python -m ltdd_jax.data.prepare cifar100$"):
        sources.load_source("cifar100", "train")
    with pytest.raises(UserError, match="file_format='array_record'"):
        sources.load_source("tfds:svhn_cropped", "train", data_dir=str(tmp_path))


def test_tfrecord_set_says_what_is_wrong(damaged):
    data_dir, folder = damaged
    file = folder / "dataset_info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fileFormat": "tfrecord"}))
    for attempt in (
        lambda: sources.load_source("cifar10", "train", data_dir=str(data_dir)),
        lambda: prepare.prepare("cifar10", str(data_dir)),
    ):
        with pytest.raises(UserError, match="tfrecord") as error:
            attempt()
        assert f"delete {folder} and run: python -m ltdd_jax.data.prepare" in str(error.value)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damaged_records_name_the_file(damage, damaged):
    data_dir, folder = damaged
    file = next(folder.glob("cifar10-test.array_record*"))
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        if damage == "flip":
            content[3000:3010] = bytes(255 - b for b in content[3000:3010])
        file.write_bytes({"flip": content, "truncate": content[:-1000], "empty": b""}[damage])
    with pytest.raises(UserError, match=rf"{file} is .*python -m ltdd_jax.data.prepare cifar10"):
        sources.load_source("cifar10", "test", data_dir=str(data_dir))


def test_damaged_metadata(damaged):
    data_dir, folder = damaged
    file = folder / "dataset_info.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(UserError, match=f"{folder}: split 'train' cannot be opened"):
        sources.load_source("cifar10", "train", data_dir=str(data_dir))
    file.unlink()  # TFDS would take this for a set in tfrecord format
    with pytest.raises(UserError, match="is not prepared in"):
        sources.load_source("cifar10", "train", data_dir=str(data_dir))


class TrainAlone(little.Little):
    """A set that TFDS has without a test split, as it has many."""

    name = "train_alone"

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._examples("train")}


def test_set_without_test_is_read_where_held_out_images_judge(tmp_path):
    """Breaks when a split that nobody reads is asked for, or is to be prepared again."""
    builder = TrainAlone(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    config = tiny_config.get_config()
    config.data.update(source="tfds:train_alone", data_dir=str(tmp_path), judge="held_out")
    config.data.imbalance_factor = 2.0
    command_line.check_data(config)
    train, judges = problem.load_sets(config)
    assert (len(train.labels), len(judges.labels)) == (18, 4)
    config.data.judge = "test"
    for attempt in (command_line.check_data, problem.load_sets):
        with pytest.raises(UserError) as error:
            attempt(config)
        assert str(error.value) == (
            f"{builder.data_dir} has no split 'test', only train; set "
            "--config.data.judge=held_out, which judges with training images, or give another data "
            "set"
        )


@_needs_real
def test_real_cifar10_subset_is_the_published_one():
    """Selected by id order, IF 100: the recorded SHA-256 of the index list."""
    loaded = sources.load_source("cifar10", "train", data_dir=str(_REAL / "tfds"))
    indices = long_tail.select_long_tail(loaded.labels, 10, 100)
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == (
        "fad12a0cd88d0bd73627a6da2b5c2c75c67aca9c4b1b5de2e93f6c57dc4c647f"
    )
    archive = _REAL / "cifar10-lt100.tar"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    # The archive holds the same pictures, sorted by their place in the class.
    pictures = sources.load_source("folder", "train", path=str(archive))
    by_class = [np.sort(indices[loaded.labels[indices] == label]) for label in range(10)]
    subset = loaded.take(np.concatenate(by_class))
    assert pictures.class_names == loaded.class_names
    np.testing.assert_array_equal(pictures.labels, subset.labels)
    np.testing.assert_array_equal(pictures.images, subset.images)


@pytest.mark.skipif(
    not (_REAL / "tfds" / "tiny_imagenet_100_32").is_dir(), reason=f"no Tiny-ImageNet in {_REAL}"
)
def test_set_without_a_registered_builder_is_read():
    loaded = sources.load_source(
        "tfds:tiny_imagenet_100_32", "test", data_dir=str(_REAL / "tfds"), image_size=32
    )
    assert loaded.images.shape == (5000, 32, 32, 3)
    np.testing.assert_array_equal(loaded.class_counts(), 50)
