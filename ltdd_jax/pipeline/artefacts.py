"""Synthetic sets as files: the first one, those kept on the way, and the result."""

import dataclasses
import io
import re
import types
import zlib
from typing import Any

import jax
import numpy as np
from etils import epath

from ltdd_jax.data import mosaic, normalize
from ltdd_jax.pipeline.run import Run
from ltdd_jax.report import grid
from ltdd_jax.runtime import files, processes
from ltdd_jax.types import SyntheticSet, UserError

FINAL = "synthetic"
GRID = "grid.png"  # written last
INITIAL = "initial"
_KEPT = re.compile(r"iteration_(\d{6,})")
_ARRAYS = ("images", "label_logits", "step_size", "labels")
_REMEDY = "delete it and run --stage=distill again"  # which writes the first set and the result


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """A synthetic set with the class that each row stands for.

    Attributes:
      synthetic: images, label logits, step size.
      labels: int32 [S].
      partition: f; each image holds f x f pictures, which students see one by one.
      num_stored: images that are stored for these rows; 0 is one for each.
    """

    synthetic: SyntheticSet
    labels: np.ndarray
    partition: int = 1
    num_stored: int = 0

    @property
    def num_kept(self) -> int:
        """Images on disk."""
        return self.num_stored or len(self.labels)

    @property
    def kept_labels(self) -> np.ndarray:
        """Classes of the images on disk, int32; a set that was expanded repeats them."""
        return self.labels[: self.num_kept]

    @property
    def num_seen(self) -> int:
        """Images that a student sees: f² for each that is stored."""
        return self.partition**2 * len(self.labels)

    def show(self) -> tuple[np.ndarray, np.ndarray]:
        """What a student is trained on: images [f²S, H, W, C] and label logits [f²S, K]."""
        images = mosaic.expand(np.asarray(self.synthetic.images), self.partition)
        logits = mosaic.repeat_labels(np.asarray(self.synthetic.label_logits), self.partition)
        return np.asarray(images), np.asarray(logits)

    def expand(self) -> "LabelledSet":
        """The set with a row, and a label, for every picture that a student sees."""
        if self.partition == 1:
            return self
        images, label_logits = self.show()
        synthetic = SyntheticSet(images, label_logits, self.synthetic.step_size)
        labels = np.asarray(mosaic.repeat_labels(self.labels, self.partition))
        return LabelledSet(synthetic, labels, num_stored=self.num_kept)

    def checksum(self) -> str:
        """What ties results to the set they are of; hexadecimal."""
        value = 0
        for leaf in jax.tree.leaves(self.synthetic):
            value = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), value)
        return f"{value:08x}" + (f" x {self.partition}" if self.partition > 1 else "")


def name_kept(iteration: int) -> str:
    """Name of the set after `iteration` iterations."""
    return f"iteration_{iteration:06d}"


def find_set(run: Run, name: str) -> epath.Path:
    """Where the set called `name` lies."""
    return run.workspace.synthetic / f"{name}.npz"


def write_set(
    run: Run, synthetic: SyntheticSet, labels: np.ndarray, name: str, partition: int = 1
) -> None:
    """Writes NAME.npz and, for the result, grid.png.

    The entry `partition` is there only where images hold several pictures.
    """
    images, pixels = np.asarray(synthetic.images), make_pixels(run, synthetic, partition)
    more: dict[str, Any] = {"partition": np.int32(partition)} if partition > 1 else {}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=images.astype(np.float32),
        pixels=pixels,
        label_logits=np.asarray(synthetic.label_logits, np.float32),
        labels=labels,
        step_size=np.asarray(synthetic.step_size, np.float32),
        class_names=np.asarray(run.problem.train.class_names),
        **more,
    )
    files.write_bytes(find_set(run, name), buffer.getvalue())
    if name != FINAL:
        return
    sheet = grid.draw_grid(pixels, labels, run.problem.train.class_names)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    files.write_bytes(run.workspace.synthetic / GRID, buffer.getvalue())
    processes.say(f"distilled set: {find_set(run, name)}, grid.png beside it")


def make_pixels(run: Run, synthetic: SyntheticSet, partition: int) -> np.ndarray:
    """The pictures of a set as they are looked at, uint8 [S, H, W, C]."""
    preprocessing = run.problem.preprocessing
    factor = partition if preprocessing.whitens else 1  # only whitening mixes pixels of an image
    return mosaic.map_cells(
        lambda x: normalize.invert(preprocessing, x), np.asarray(synthetic.images), factor
    )


def read_pixels(run: Run, name: str) -> np.ndarray | None:
    """The pictures of NAME.npz as they are looked at, uint8 [S, H, W, C]; None without the file.

    Raises:
      UserError: it is damaged.
    """
    path = find_set(run, name)
    try:
        return _read_arrays(path, ("pixels",))["pixels"] if path.exists() else None
    except files.DamagedFileError as error:
        raise UserError(f"{error}; {_REMEDY}") from error


def read_set(run: Run, name: str) -> LabelledSet:
    """Reads NAME.npz, the first set or the result.

    Raises:
      UserError: it is missing, damaged or of other data.
    """
    path = find_set(run, name)
    if not path.exists():
        raise UserError(f"{path} is missing; run --stage=distill with the same --workdir")
    try:
        return _read_set(run, path)
    except files.DamagedFileError as error:
        raise UserError(f"{error}; {_REMEDY}") from error


def read_kept(run: Run) -> dict[int, LabelledSet]:
    """The sets kept on the way, by the iterations before them, ascending.

    A damaged one is moved aside and left out: no stage writes it again.

    Raises:
      UserError: one cannot be read now.
    """
    return processes.first_then_rest(lambda: _read_kept(run))


def _read_kept(run):
    matches = (_KEPT.fullmatch(path.stem) for path in run.workspace.synthetic.glob("*.npz"))
    found = {}
    for iteration in sorted(int(match[1]) for match in matches if match):
        path = find_set(run, name_kept(iteration))
        try:
            found[iteration] = _read_set(run, path)
        except files.DamagedFileError as error:
            run.workspace.warn(
                f"{error}; moved to {files.set_aside(path).name}, and the curve has no point after "
                f"{iteration} iterations: a distillation that is past it does not write it again"
            )
    return found


def _read_set(run, path):
    found = _read_arrays(path, _ARRAYS, {"partition": np.int32(1)})
    partition = int(found.pop("partition"))
    num_rows = len(found["labels"]) if found["labels"].ndim == 1 else 0
    num_classes = run.problem.num_classes
    expected = {
        "images": ((num_rows, *run.problem.image_shape), np.float32),
        "label_logits": ((num_rows, num_classes), np.float32),
        "step_size": ((), np.float32),
        "labels": ((num_rows,), np.int32),
    }
    for key, (shape, dtype) in expected.items():
        array = found[key]
        if (array.dtype, array.shape) != (dtype, shape) or not np.isfinite(array).all():
            raise files.DamagedFileError(
                f"{path} is not of this run: {key} is {array.dtype}{list(array.shape)}, not "
                f"finite {np.dtype(dtype)}{list(shape)}"
            )
    labels = found.pop("labels")
    if partition < 1 or any(side % partition for side in run.problem.image_shape[:2]):
        raise files.DamagedFileError(
            f"{path} is not of this run: its images cannot hold {partition} x {partition} pictures"
        )
    if num_rows == 0 or labels.min() < 0 or labels.max() >= num_classes:
        raise files.DamagedFileError(
            f"{path} is not of this run: its labels are not 0 to {num_classes - 1}"
        )
    return LabelledSet(SyntheticSet(**found), labels, partition)


def _read_arrays(path, names, defaults=types.MappingProxyType({})):
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            found = {name: archive[name] for name in names}
            return found | {n: archive.get(n, x) for n, x in defaults.items()}
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib or NumPy
        files.raise_if_unreadable(path, error)
        raise files.DamagedFileError(f"{path} is damaged ({error!r})") from error
