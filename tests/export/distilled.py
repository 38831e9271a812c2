"""Made-up distilled sets, and a look at an exported folder through its own README."""

import contextlib
import pathlib
import re
import sys
import warnings
from typing import Any

import numpy as np

from ltdd_jax.data import normalize
from ltdd_jax.dataset import DistilledDataset

CASES = ("colour", "grey", "plain", "gap")


def make_set(case: str) -> DistilledDataset:
    """Random pixels and labels.

    Args:
      case: "colour" has a whitening matrix and more classes than one digit counts; "grey" one
        channel, the whitening of few images, rows in no order and names that are no file names;
        "plain" no whitening; "gap" grey pictures, and a class without any.
    """
    generator = np.random.default_rng(CASES.index(case))
    num_rows, shape = {
        "colour": (90, (6, 5, 3)),
        "grey": (9, (7, 6, 1)),
        "plain": (9, (4, 4, 3)),
        "gap": (9, (4, 4, 1)),
    }[case]
    fitted = generator.integers(0, 256, (num_rows, *shape), np.uint8)
    channels = shape[2]
    pre = normalize.fit(
        fitted, mean=(0.4,) * channels, std=(0.2, 0.25, 0.3)[:channels], whiten=case != "plain"
    )
    names = {
        "colour": [f"class {k}" for k in range(12)],
        "grey": ["zebra/horse", "Äpfel & Birnen, rot", "ant"],
        "plain": ["b", "a"],
        "gap": ["many", "none", "some"],
    }[case]
    labels = np.repeat(np.arange(len(names)), 2).astype(np.int32)
    if case == "grey":
        labels = generator.permutation(labels)
    if case == "gap":  # as a proportional selection leaves a rare class
        labels = labels[labels != 1]
    pixels = generator.integers(0, 256, (len(labels), *shape), np.uint8)
    exact = normalize.apply(pre, pixels)
    return DistilledDataset(
        images=exact + generator.normal(0, 0.01, exact.shape).astype(np.float32),
        pixels=pixels,
        labels=labels,
        label_logits=generator.normal(0, 3, (len(labels), len(names))).astype(np.float32),
        step_size=0.03,
        class_names=tuple(names),
        preprocessing=pre,
        network={"name": "convnet", "width": 8, "depth": 2},
        augmentation="flip_crop" if case == "colour" else "",
    )


def read_by_readme(folder: pathlib.Path) -> dict[str, Any]:
    """Runs the code of README.md in the folder, as a stranger would; returns its variables."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    variables: dict[str, Any] = {}
    with contextlib.chdir(folder), hidden_package(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # WebDataset leaves its shards open
        exec(compile(code, str(folder / "README.md"), "exec"), variables)
        some = np.random.default_rng(5).integers(0, 256, (3, *_shape(variables)), np.uint8)
        if "torch" in variables:
            some = variables["torch"].from_numpy(some)
        variables["some_pixels"], variables["some_whitened"] = some, variables["whiten"](some)
    return variables


@contextlib.contextmanager
def hidden_package():
    """As if ltdd_jax were not installed."""
    ours = [name for name in sys.modules if name.partition(".")[0] == "ltdd_jax"]
    hidden = {name: sys.modules.pop(name) for name in ours}
    sys.modules["ltdd_jax"] = None
    try:
        yield
    finally:
        sys.modules.update(hidden)


def _shape(variables):
    return tuple(variables["pixels"].shape[1:])


def assert_equal_set(found: dict[str, Any], dataset: DistilledDataset) -> None:
    """Pixels, labels and soft labels bit for bit; the whitening to rounding."""
    as_rows = (0, 2, 3, 1) if "torch" in found else (0, 1, 2, 3)
    order = np.asarray(found.get("order", np.arange(len(dataset.labels))))
    assert sorted(order.tolist()) == list(range(len(dataset.labels)))
    pixels = np.asarray(found["pixels"]).transpose(as_rows)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, dataset.pixels[order])
    np.testing.assert_array_equal(np.asarray(found["labels"]), dataset.labels[order])
    soft = np.asarray(found["soft_labels"])
    assert soft.dtype == np.float32
    np.testing.assert_array_equal(soft, dataset.label_probabilities[order])
    images = np.asarray(found["images"]).transpose(as_rows)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, dataset.images[order])
    some = np.asarray(found["some_pixels"]).transpose(as_rows)
    white = np.asarray(found["some_whitened"]).transpose(as_rows)
    assert white.dtype == np.float32
    np.testing.assert_allclose(
        white, normalize.apply(dataset.preprocessing, some), rtol=1e-4, atol=1e-4
    )
