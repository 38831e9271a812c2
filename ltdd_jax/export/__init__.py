"""A distilled set as files that other libraries read, without this package.

    ltdd export DIR --format=png --out=FOLDER
    ltdd_jax.export_dataset(ltdd_jax.load_dataset(DIR), "png", FOLDER)

`python -m ltdd_jax.export` is the same command. One module per format has `write(dataset, folder)`,
`explain_loading(dataset)`, the code that reads what was written, and `IMAGES`, the expression for
network input after that code; `card` adds what all formats share.
"""

import importlib
import os
import pathlib
import shutil
import tempfile
from types import ModuleType

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.errors import UserError

# Format -> the module that writes it; imported when it is used, as some need further packages.
FORMATS = {
    "png": "png",
    "huggingface": "huggingface",
    "torch": "torch_tensors",
    "tfds": "tfds",
    "webdataset": "webdataset",
}
# Package that a format needs -> how to install it.
_INSTALL = {"pyarrow": "pip install 'ltdd_jax[export]'", "torch": "pip install torch"}


def export_dataset(
    dataset: DistilledDataset, format: str, out: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes a distilled set for another library; the folder appears complete or not at all.

    Every format holds the pixels, the classes, the soft labels, the images as a network is trained
    on them (float32, whitened; pixels are rounded and cut), the whitening as tensors, a teacher's
    labels of augmented views if the set has them, and a README.md with the code that loads all
    that. Where images hold several pictures each, these are
    written as images of their own, as a network is trained on them.

    Args:
      dataset: from `load_dataset` or `distill_dataset`.
      format: "png" (class folders, as torchvision's ImageFolder reads them), "huggingface"
        (parquet), "torch" (a .pt file), "tfds" (array_record) or "webdataset" (.tar shards).
      out: folder to make; it may exist if it is empty.

    Returns:
      The folder.

    Raises:
      UserError: unknown format, `out` is not empty or cannot be written, or the package that the
        format needs is not installed.
    """
    writer, dataset = _find_writer(format), dataset.expand()
    try:
        folder = pathlib.Path(out).expanduser().resolve()  # a link cannot be replaced by a folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"--out={out} is there and not an empty folder; nothing is overwritten: give "
                "another --out, or remove it"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(writer, dataset, folder)
    except OSError as error:
        raise UserError(
            f"--out={out} cannot be written ({error.strerror or error}); give another --out or "
            "free some disk space"
        ) from error
    return folder


def _find_writer(format: str) -> ModuleType:
    if format not in FORMATS:
        raise UserError(f"--format={format} is unknown: it must be one of {', '.join(FORMATS)}")
    try:
        return importlib.import_module(f"{__name__}.{FORMATS[format]}")
    except ModuleNotFoundError as error:
        if error.name not in _INSTALL:
            raise
        raise UserError(
            f"--format={format} needs {error.name}, which is not installed: {_INSTALL[error.name]}"
        ) from error


def _write_whole(writer: ModuleType, dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes into a folder beside, then renames it."""
    from ltdd_jax.export import card  # imports JAX, which the command line can do without

    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o777 & ~_umask())  # mkdtemp keeps others out
        writer.write(dataset, temporary)
        text = card.render(dataset, writer)
        if dataset.views is not None:
            text += importlib.import_module(f"{__name__}.views").write(dataset, temporary)
        (temporary / "README.md").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
