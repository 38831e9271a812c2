"""Labels of augmented views in an exported folder, with the numbers that reproduce the views."""

import pathlib
from typing import Any

import jax
import numpy as np

from ltdd_jax.data import views
from ltdd_jax.dataset import DistilledDataset

FILE = "views.npz"
_BOXES = ("top", "left", "height", "width", "mirrored")
_README = """
## Labels of augmented views

`views.npz` holds a teacher's logits for {count} augmented views of every image, and the crops and
patches of these views: train on `make_view(images, v)` and `views["logits"][v]`, another v every
epoch, with a distance such as the Kullback-Leibler divergence of softmax(logits / 4). `images` are
a NumPy array [{rows}, H, W, C] in the order of the rows of the set.

```python
{code}```
"""
_CODE = """\
import numpy as np

with np.load("views.npz") as found:
    views = dict(found)


def make_view(images, v):
    \"\"\"All images, each cropped, mirrored or not, and with a patch of another one's crop.\"\"\"

    def weigh(start, length, side):
        at = start[:, None] + (np.arange(side) + 0.5) / side * length[:, None] - 0.5
        last = np.minimum(start + np.maximum(length - 1, 0), side - 1)
        at = np.clip(at, start[:, None], last[:, None])
        return np.maximum(1 - abs(at[:, :, None] - np.arange(side)), 0)

    numbers = {name: array[v] for name, array in views.items()}
    rows = weigh(numbers["top"], numbers["height"], images.shape[1])
    cols = weigh(numbers["left"], numbers["width"], images.shape[2])
    cols[numbers["mirrored"]] = cols[numbers["mirrored"], ::-1]
    crops = np.einsum("bjs,bisc->bijc", cols, np.einsum("bir,brsc->bisc", rows, images))
    result = crops.copy()
    patches = zip(numbers["partners"], numbers["patch_rows"], numbers["patch_cols"])
    for s, (partner, (top, bottom), (left, right)) in enumerate(patches):
        result[s, top:bottom, left:right] = crops[partner, top:bottom, left:right]
    return result
"""


def write(dataset: DistilledDataset, folder: pathlib.Path) -> str:
    """Writes views.npz: logits [V, S, K] and, for each view and image, what was drawn.

    Returns:
      The part of README.md on them.
    """
    stored = dataset.views
    key = jax.random.wrap_key_data(stored.key)
    count, size = len(dataset.labels), dataset.images.shape[1:3]
    draws = [views.draw(key, v, count, size, stored.recipe) for v in range(len(stored.logits))]
    none = np.zeros((count, 2), np.int32)
    patches = [
        (none, none) if x.patches is None else (x.patches.rows, x.patches.cols) for x in draws
    ]
    found = {
        **{name: [getattr(one.boxes, name) for one in draws] for name in _BOXES},
        "partners": [one.partners for one in draws],
        "patch_rows": [rows for rows, _ in patches],
        "patch_cols": [cols for _, cols in patches],
    }
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in found.items()}
    np.savez(folder / FILE, logits=stored.logits, **arrays)
    return _README.format(count=len(dataset.views.logits), rows=len(dataset.labels), code=_CODE)
