"""A distilled set in memory, as `load_dataset` and `distill_dataset` return it."""

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from ltdd_jax.errors import UserError

_FILE = "synthetic.npz"


@dataclasses.dataclass(frozen=True)
class DistilledDataset:
    """A synthetic set with what is needed to train on it and to test.

    Attributes:
      images: float32 [S, H, W, C], as a network is trained on them (whitened or normalised).
      pixels: uint8 [S, H, W, C], to look at.
      labels: int32 [S], the class that each image stands for.
      label_logits: float32 [S, K]; a loss takes their softmax.
      step_size: learning rate the set was made for.
      class_names: K names.
      preprocessing: what `whiten` applies; fitted to the real training images.
      network: name, width and depth of the network it was distilled with.
      augmentation: operations of DSA it was distilled with, joined by "_".
      partition: f; each image holds f x f pictures, and a network is trained on those, see
        `expand`. 1 for most methods.
      views: labels of augmented views of the images, see `data.views.StoredViews`; or None.
    """

    images: np.ndarray
    pixels: np.ndarray
    labels: np.ndarray
    label_logits: np.ndarray
    step_size: float
    class_names: tuple[str, ...]
    preprocessing: Any
    network: Mapping[str, Any]
    augmentation: str
    partition: int = 1
    views: Any = None

    def expand(self) -> "DistilledDataset":
        """The set as a network is trained on it: every picture an image of its own, enlarged."""
        return self if self.partition == 1 else _expand(self)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def label_probabilities(self) -> np.ndarray:
        """float32 [S, K], rows sum to 1."""
        shifted = np.exp(self.label_logits - self.label_logits.max(axis=1, keepdims=True))
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def whiten(self, pixels: np.ndarray) -> np.ndarray:
        """Real pictures as a network trained on this set expects them.

        Args:
          pixels: uint8 [N, H, W, C].

        Returns:
          float32 [N, H, W, C].
        """
        from ltdd_jax.data import normalize

        return normalize.apply(self.preprocessing, np.asarray(pixels))

    def batches(self, key: Any, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One pass over the (expanded) set in random order; the last batch may be smaller.

        Args:
          key: a number, or a key of JAX; equal keys give equal orders.
          size: images per batch.

        Yields:
          images float32 [B, H, W, C] and label probabilities float32 [B, K].
        """
        seed = key
        if not isinstance(key, int | np.integer):
            import jax

            seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        shown = self.expand()
        order = np.random.default_rng(seed).permutation(len(shown.labels))
        probabilities = shown.label_probabilities
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            yield shown.images[rows], probabilities[rows]


def _expand(dataset):
    from ltdd_jax.data import mosaic, normalize

    images = np.asarray(mosaic.expand(dataset.images, dataset.partition))
    labels, logits = (
        np.asarray(mosaic.repeat_labels(x, dataset.partition))
        for x in (dataset.labels, dataset.label_logits)
    )
    return dataclasses.replace(
        dataset,
        images=images,
        pixels=normalize.invert(dataset.preprocessing, images),
        labels=labels,
        label_logits=logits,
        partition=1,
    )


def load_dataset(directory: str | os.PathLike[str], set_name: str = "") -> DistilledDataset:
    """Reads the distilled set of a working directory.

    Args:
      directory: the `--workdir` of a run, local or remote.
      set_name: its `--set`; "" is the set at the root.

    Raises:
      UserError: there is no set, it is damaged, or it cannot be read from here or now.
    """
    from ltdd_jax.data import normalize
    from ltdd_jax.runtime import files

    root = epath.Path(os.fspath(directory)).expanduser()
    if not files.is_local(root):
        root = files.resolve(os.fspath(directory))
    home = root / "sets" / set_name if set_name else root
    path, record = home / "synthetic" / _FILE, home / "set.json"
    if not files.exists(path):
        raise UserError(f"{path} is missing: there is no distilled set; run the distillation first")
    with _explain(path):
        found = _read_arrays(path)
        arrays = {n: found[n] for n in ("images", "pixels", "labels", "label_logits")}
        step_size, names = float(found["step_size"]), found["class_names"]
    with _explain(record):
        config = json.loads(record.read_text())["config"]
        network, augmentation = config["net"], config["augment"]["strategy"]
    found_set = DistilledDataset(
        **arrays,
        step_size=step_size,
        class_names=tuple(str(name) for name in names),
        preprocessing=normalize.load(root / "preprocessing.npz"),
        network=network,
        augmentation=augmentation,
        partition=int(found.get("partition", 1)),
    )
    return _relabel(found_set, home / "synthetic")


def _relabel(dataset, folder):
    """The set with the label logits or stored views that a relabelling has left, if one has."""
    from ltdd_jax.runtime import files

    pointer = folder / "labels.json"
    if not files.exists(pointer):
        return dataset
    with _explain(pointer):
        record = json.loads(pointer.read_text())
        name, recipe = record["file"], record.get("recipe")
    if not name:
        return dataset
    with _explain(folder / name):
        arrays = _read_arrays(folder / name)
        dataset = dataset.expand()  # every picture has its own labels
        key = arrays["key"] if "views" in arrays else None
        labels = arrays["label_logits" if key is None else "views"]
        if labels.shape[-2] != len(dataset.labels):
            raise ValueError(f"it labels {labels.shape[-2]} images, not {len(dataset.labels)}")
    if key is None:
        return dataclasses.replace(dataset, label_logits=labels)
    from ltdd_jax.data import views

    with _explain(pointer):
        made = views.Recipe(**recipe | {"area": tuple(recipe["area"])})
    return dataclasses.replace(dataset, views=views.StoredViews(labels, key, made))


def _read_arrays(path):
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@contextlib.contextmanager
def _explain(path):
    """Tells what fails inside as a file that cannot be read now, or that is damaged."""
    from ltdd_jax.runtime import files

    try:
        yield
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib or NumPy
        files.raise_if_unreadable(path, error)
        raise UserError(
            f"{path} is damaged ({error!r}); run --stage=distill again with the same --workdir"
        ) from error
