"""A set whose pixels stay on disk gives what the same set in memory gives, through every stage."""

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.data import disk_images
from tests.pipeline import runs

# A network that compiles at once, with batches that do not divide the number of pictures.
QUICK = {
    "name": "streamed",
    "net__name": "mlp",
    "data__source": "folder",
    "data__subset": "as_is",
    "data__image_size": 6,
    "data__normalize": True,
    "augment__strategy": "",
    "experts__representation__batch_size": 5,
    "experts__classifier__batch_size": 4,
    "evaluation__batch_size": 5,
}


@pytest.fixture
def pictures(tmp_path):
    """Grey and coloured files of two sizes."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, count in (("cat", 9), ("dog", 4)):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (6 + number % 2, 6), np.uint8)
                mode = "L" if number % 3 else "RGB"
                Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("whiten", "stage"), [("on", "experts"), pytest.param("off", "all", marks=pytest.mark.slow)]
)
def test_streamed_pictures_give_the_same_run(run, pictures, tmp_path, monkeypatch, whiten, stage):
    """Breaks when a batch takes other rows, or a row is preprocessed in another way.

    Whitening on the host multiplies other numbers of rows at once, which changes last digits, so
    that only the experts, whitened on the device in both runs, are compared with it.
    """
    monkeypatch.setattr(disk_images, "_PIECE_BYTES", 1000)  # some pieces
    options = {**QUICK, "data__path": str(pictures), "data__whiten": whiten}
    options["runtime__image_storage"] = "uint8"
    for memory in ("load", "stream"):
        run(
            tmp_path / memory,
            stage,
            data__memory=memory,
            data__cache=str(tmp_path / "cache"),
            **options,
        )
    read = runs.artefacts if stage == "all" else lambda workdir: runs.snapshots(workdir / "experts")
    found, expected = (read(tmp_path / memory) for memory in ("stream", "load"))
    if stage == "all":
        for artefacts in (found, expected):
            del artefacts["config.json"], artefacts["report"]["config"]
    assert len(expected) > 10
    different = [k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k)]
    assert not different, sorted(different)
    assert list((tmp_path / "cache").glob("*/pixels"))
