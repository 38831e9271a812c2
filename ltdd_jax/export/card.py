"""What every format shares: README.md, and the numbers that a picture cannot hold."""

import collections
import io
import json
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.export import whitening

_README = """\
{head}# {count} distilled images of {num_classes} classes

A small synthetic training set, distilled from a long-tailed one: {colours} images of
{height} x {width} pixels with a soft label each. Run the code below in this folder; the program
that made the images is not needed.

## Load

```python
{load}```

`pixels` are uint8; `labels` are the classes that the images stand for; `soft_labels`
[{count}, {num_classes}] are what a network should answer, rows sum to 1.

## Train and test

```python
{whiten}
images = {images}
```

Train on `images` and `soft_labels` (cross-entropy with probabilities), with SGD at a learning rate
of {learning_rate:.4g}, for which they were distilled. Give test pictures to the network as
`whiten(pixels)`: {whiten_note}.

`images` are the distilled ones, with all their digits. `pixels` are rounded and cut to 0..255, and
`whiten(pixels)` differs from `images` by {difference:.2g} (root mean square; that of the images
themselves is {size:.2g}): look at `pixels`, train on `images`.

- network: {network}
- augmentation: {augmentation}
- classes, in the order of the labels: {classes}
"""


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 1 or 3] as a PNG file, grey or RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def describe(dataset: DistilledDataset) -> dict[str, Any]:
    """Settings that belong to a set, as JSON holds them."""
    return {
        "class_names": list(dataset.class_names),
        "learning_rate": float(dataset.step_size),
        "augmentation": dataset.augmentation,
        "network": dict(dataset.network),
    }


def tell_apart(names: Sequence[str]) -> list[str]:
    """The names of classes, for formats in which none may stand twice: then with its number."""
    counts = collections.Counter(names)
    return [f"{name} ({k})" if counts[name] > 1 else name for k, name in enumerate(names)]


def write_numbers(dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes whitening.npz and info.json."""
    arrays: dict[str, Any] = {**whitening.to_arrays(dataset.preprocessing)}
    np.savez(folder / "whitening.npz", **arrays)
    text = json.dumps(describe(dataset), indent=2, ensure_ascii=False)
    (folder / "info.json").write_text(text + "\n", encoding="utf-8")


def render(dataset: DistilledDataset, writer: ModuleType) -> str:
    """README.md of a format.

    Args:
      dataset: what is exported.
      writer: module of the format; it may have HEAD, text before the title, and LIBRARY, in
        whose tensors `whiten` works if these are not NumPy's.
    """
    library = getattr(writer, "LIBRARY", "numpy")
    count, height, width, channels = dataset.pixels.shape
    lost = dataset.whiten(dataset.pixels) - dataset.images
    return _README.format(
        head=getattr(writer, "HEAD", ""),
        count=count,
        num_classes=dataset.num_classes,
        height=height,
        width=width,
        colours="grey" if channels == 1 else "RGB",
        load=writer.explain_loading(dataset),
        whiten=whitening.explain(dataset.preprocessing, library),
        images=writer.IMAGES,
        learning_rate=float(dataset.step_size),
        whiten_note=(
            "ZCA whitening, fitted to the real training images"
            if dataset.preprocessing.whitens
            else "channels normalised, no whitening"
        ),
        difference=np.sqrt(np.mean(np.square(lost))),
        size=np.sqrt(np.mean(np.square(dataset.images))),
        network=", ".join(f"{key} {value}" for key, value in sorted(dataset.network.items())),
        augmentation=dataset.augmentation or "none",
        classes=", ".join(dataset.class_names),
    )
