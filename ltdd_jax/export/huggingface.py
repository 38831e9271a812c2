"""Parquet with a dataset card, as `datasets.load_dataset` of Hugging Face reads it from disk."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.export import card

_FILE = "data/train-00000-of-00001.parquet"
HEAD = f"""\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: {_FILE}
task_categories:
- image-classification
tags:
- dataset-distillation
---

"""
IMAGES = 'rows.with_format("numpy")["network_input"][:]'
_LOAD = """\
import os

import datasets
import numpy as np

rows = datasets.load_dataset(os.getcwd(), split="train")
pixels = np.stack([np.asarray(picture) for picture in rows["image"]]){grey}
labels = np.array(rows["label"])
soft_labels = np.array(rows["soft_label"], np.float32)
"""


def write(dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes one parquet file with embedded PNG files, and the whitening."""
    encoded = [
        {"bytes": card.encode_png(pixels), "path": f"{row:06d}.png"}
        for row, pixels in enumerate(dataset.pixels)
    ]
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    num_classes = dataset.num_classes
    shape = list(dataset.images.shape[1:])
    columns = {
        "image": pa.array(encoded, picture),
        "label": pa.array(dataset.labels, pa.int64()),
        "soft_label": pa.FixedSizeListArray.from_arrays(
            pa.array(dataset.label_probabilities.ravel(), pa.float32()), num_classes
        ),
        "network_input": _nest(dataset.images),
    }
    features = {
        "image": {"_type": "Image"},
        "label": {"names": card.tell_apart(dataset.class_names), "_type": "ClassLabel"},
        "soft_label": {
            "feature": {"dtype": "float32", "_type": "Value"},
            "length": num_classes,
            "_type": "Sequence",
        },
        "network_input": {"shape": shape, "dtype": "float32", "_type": "Array3D"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder / _FILE).parent.mkdir()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / _FILE)
    card.write_numbers(dataset, folder)


def explain_loading(dataset: DistilledDataset) -> str:
    """Code that reads the folder."""
    return _LOAD.format(grey="[..., None]" if dataset.pixels.shape[3] == 1 else "")


def _nest(images: np.ndarray) -> pa.Array:
    """[S, H, W, C] as S lists of H lists of W lists of C numbers, as Array3D is stored."""
    nested = pa.array(images.ravel(), pa.float32())
    for size in reversed(images.shape[1:]):
        ends = np.arange(0, len(nested) + 1, size, dtype=np.int32)
        nested = pa.ListArray.from_arrays(pa.array(ends), nested)
    return nested
