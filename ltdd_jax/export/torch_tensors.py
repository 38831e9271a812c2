"""One .pt file of tensors, which `torch.load` reads with `weights_only=True`."""

import pathlib

import numpy as np
import torch

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.export import card, whitening

LIBRARY = "torch"
IMAGES = 'found["network_input"]'
_LOAD = """\
import torch

found = torch.load("distilled.pt", weights_only=True)
pixels = found["pixels"]  # uint8 [S, C, H, W]
labels, soft_labels = found["labels"], found["soft_labels"]
"""


def write(dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes distilled.pt: everything in one dict, images as [S, C, H, W]."""
    found = {
        "network_input": _tensor(dataset.images.transpose(0, 3, 1, 2)),
        "pixels": _tensor(dataset.pixels.transpose(0, 3, 1, 2)),
        "labels": _tensor(dataset.labels.astype(np.int64)),
        "soft_labels": _tensor(dataset.label_probabilities),
        "whitening": {
            name: _tensor(array)
            for name, array in whitening.to_arrays(dataset.preprocessing).items()
        },
        **card.describe(dataset),
    }
    torch.save(found, folder / "distilled.pt")


def explain_loading(dataset: DistilledDataset) -> str:
    """Code that reads the file."""
    del dataset
    return _LOAD


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))  # a copy: PyTorch warns of read-only ones
