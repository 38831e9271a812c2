"""PNG files in a folder per class, as torchvision's ImageFolder and many others read them."""

import csv
import pathlib
import re

import numpy as np

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.export import card

IMAGES = 'np.load("network_input.npy")[order]'
_MAX_NAME = 200  # bytes of a class's name in that of its folder; most file systems take 255
_LOAD = """\
import csv

import numpy as np{grey_import}
from torchvision.datasets import ImageFolder

folder = ImageFolder("images"{loader}{empty}
pixels = np.stack([np.asarray(picture) for picture, _ in folder]){grey}
labels = np.array(folder.targets)
with open("labels.csv", newline="", encoding="utf-8") as file:
    rows = {{row["file"]: row for row in csv.DictReader(file)}}
rows = [rows[path] for path, _ in folder.samples]
soft_labels = [[row[f"probability_{{k}}"] for k in range({num_classes})] for row in rows]
soft_labels = np.array(soft_labels, np.float32)
order = [int(row["row"]) for row in rows]  # where each picture stands in network_input.npy
"""


def write(dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes images/CLASS/ROW.png, labels.csv, network_input.npy [S, H, W, C] and the whitening.

    Folders are numbered, so that their alphabetical order is the order of the labels.
    """
    names = [_name_folder(k, dataset) for k in range(dataset.num_classes)]
    for name in names:
        (folder / "images" / name).mkdir(parents=True)
    columns = [f"probability_{k}" for k in range(dataset.num_classes)]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["row", "file", "label", "class", *columns])
        probabilities = dataset.label_probabilities
        for row, label in enumerate(dataset.labels.tolist()):
            path = f"images/{names[label]}/{row:06d}.png"
            (folder / path).write_bytes(card.encode_png(dataset.pixels[row]))
            # As Python's floats, which print all digits that float32 needs.
            numbers = probabilities[row].tolist()
            table.writerow([row, path, label, dataset.class_names[label], *numbers])
    np.save(folder / "network_input.npy", np.asarray(dataset.images, np.float32))
    card.write_numbers(dataset, folder)


def explain_loading(dataset: DistilledDataset) -> str:
    """Code that reads the folder.

    Unless told otherwise, ImageFolder makes grey pictures RGB and refuses a class without any.
    """
    is_grey = dataset.pixels.shape[3] == 1
    has_all = len(np.unique(dataset.labels)) == dataset.num_classes
    return _LOAD.format(
        num_classes=dataset.num_classes,
        grey_import="\nfrom PIL import Image" if is_grey else "",
        loader=", loader=Image.open" if is_grey else "",
        empty=")" if has_all else ", allow_empty=True)  # torchvision 0.18 or later",
        grey="[..., None]" if is_grey else "",
    )


def _name_folder(label: int, dataset: DistilledDataset) -> str:
    digits = len(str(dataset.num_classes - 1))
    words = re.sub(r"[^\w.-]+", "_", dataset.class_names[label])
    return f"{label:0{digits}d}_" + words.encode()[:_MAX_NAME].decode(errors="ignore")
