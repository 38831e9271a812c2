"""Breaks when one of the data sources cannot go through the whole pipeline."""

import numpy as np
import pytest
from PIL import Image

from tests.pipeline import little, runs

# A network that compiles at once; the images differ in size from those of the other tests.
QUICK = {"net__name": "mlp", "augment__strategy": "", "data__whiten": "off", "name": "quick"}


def check(workdir, image_shape, num_classes):
    assert (workdir / "report.md").exists()
    with np.load(workdir / "synthetic" / "synthetic.npz") as archive:
        assert archive["pixels"].shape == (num_classes, *image_shape)
        assert len(archive["class_names"]) == num_classes
        return list(archive["class_names"])


@pytest.mark.slow
def test_own_pictures_already_long_tailed(run, tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, count in (("cat", 9), ("dog", 3)):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (10, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    run(
        tmp_path / "run",
        data__source="folder",
        data__path=str(tmp_path / "pictures"),
        data__image_size=8,
        data__subset="as_is",
        experts__representation__batch_size=4,
        experts__classifier__batch_size=4,
        **QUICK,
    )
    assert check(tmp_path / "run", (8, 8, 3), 2) == ["cat", "dog"]


@pytest.mark.slow
def test_own_arrays_grey_oblong_and_few(run, tmp_path):
    """Whitened by the directions of few images, on the device too; the test set is held out."""
    generator = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    np.savez(
        path,
        images=generator.integers(0, 256, (30, 10, 12), np.uint8),
        labels=np.arange(30) % 2,
        class_names=["cat", "dog"],
    )
    run(
        tmp_path / "run",
        data__source="npz",
        data__path=str(path),
        data__subset="as_is",
        experts__representation__batch_size=4,
        experts__classifier__batch_size=4,
        runtime__image_storage="uint8",
        **QUICK | {"data__whiten": "on"},
    )
    assert check(tmp_path / "run", (10, 12, 1), 2) == ["cat", "dog"]
    with np.load(tmp_path / "run" / "preprocessing.npz") as archive:
        assert archive["zca_basis"].shape == (120, 23)


@pytest.fixture
def data_dir(tmp_path):
    little.Little(data_dir=tmp_path / "data", file_format="array_record").download_and_prepare()
    return str(tmp_path / "data")


def test_prepared_array_records(run, tmp_path, data_dir):
    run(
        tmp_path / "run",
        "experts",
        data__source="tfds:little",
        data__data_dir=data_dir,
        data__imbalance_factor=5.0,
        experts__representation__batch_size=8,
        experts__classifier__batch_size=8,
        **QUICK,
    )
    found = runs.snapshots(tmp_path / "run" / "experts")
    kernels = [shape for name, (_, shape, _) in found.items() if name.endswith("classifier.kernel")]
    assert kernels and all(shape[-1] == 3 for shape in kernels)
