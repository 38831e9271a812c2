"""Shards in .tar files with a .png, .npy, .cls and .json per image, as WebDataset streams them."""

import io
import json
import pathlib
import tarfile

import numpy as np

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.export import card

_SHARD_ROWS = 1000
IMAGES = 'np.stack([row["npy"] for row in rows])'
_LOAD = """\
import glob

import numpy as np
import webdataset

shards = sorted(glob.glob("distilled-*.tar"))
rows = list(webdataset.WebDataset(shards, shardshuffle=False).decode("{decoder}"))
pixels = np.stack([row["png"] for row in rows]){grey}
labels = np.array([row["cls"] for row in rows])
soft_labels = np.array([row["json"]["soft_label"] for row in rows], np.float32)
"""


def write(dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes distilled-000000.tar, ..., up to 1000 images each, and the whitening."""
    probabilities = dataset.label_probabilities
    for shard, begin in enumerate(range(0, len(dataset.labels), _SHARD_ROWS)):
        with tarfile.open(folder / f"distilled-{shard:06d}.tar", "w") as archive:
            for row in range(begin, min(begin + _SHARD_ROWS, len(dataset.labels))):
                label = int(dataset.labels[row])
                facts = {
                    "label": label,
                    "class_name": dataset.class_names[label],
                    "soft_label": probabilities[row].tolist(),
                }
                _add(archive, f"{row:06d}.png", card.encode_png(dataset.pixels[row]))
                _add(archive, f"{row:06d}.cls", str(label).encode())
                _add(archive, f"{row:06d}.npy", _encode_array(dataset.images[row]))
                _add(archive, f"{row:06d}.json", json.dumps(facts).encode())
    card.write_numbers(dataset, folder)


def explain_loading(dataset: DistilledDataset) -> str:
    """Code that reads the shards."""
    is_grey = dataset.pixels.shape[3] == 1
    return _LOAD.format(decoder="l8" if is_grey else "rgb8", grey="[..., None]" if is_grey else "")


def _encode_array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, np.float32))
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file; without a time, so that equal sets give equal shards."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
