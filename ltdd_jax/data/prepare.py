"""Prepares CIFAR-10 or CIFAR-100 for TensorFlow Datasets, without TensorFlow.

    python -m ltdd_jax.data.prepare cifar10 [--data_dir=DIR] [--archive=FILE]

TFDS itself downloads the archive, checks the registered SHA-256 and writes the records; only its
reading of the archive, which needs TensorFlow, is replaced. The result is what
`tfds.builder(NAME, file_format="array_record").download_and_prepare()` writes: the same ids,
labels, pixels, order and metadata. One preparation per data folder at a time.
"""

import argparse
import dataclasses
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.core.download import checksums, download_manager, resource
from tensorflow_datasets.image_classification import cifar

from ltdd_jax.data import tfds_source
from ltdd_jax.errors import UserError

_CONNECT_SECONDS = 30
_INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
_IMAGE_SHAPE = (3, 32, 32)  # of a record in the archive: planes of red, green and blue


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Examples of one split; has a length so that TFDS's progress bar knows the time left.

    Attributes:
      prefix: start of the ids, "train_" or "test_".
      label_keys: names of the label bytes at the start of each record.
      records: uint8 [N, labels + pixels].
    """

    prefix: str
    label_keys: Sequence[str]
    records: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        num_labels = len(self.label_keys)
        for index, record in enumerate(self.records):
            pixels = record[num_labels:].reshape(_IMAGE_SHAPE).transpose(1, 2, 0)
            yield (
                index,
                {
                    **{
                        key: int(label) for key, label in zip(self.label_keys, record, strict=False)
                    },
                    "id": f"{self.prefix}{index:05d}",
                    "image": Image.fromarray(np.ascontiguousarray(pixels)),  # TFDS makes it a PNG
                },
            )


class _ArchiveReader:
    """Replaces the part of TFDS's CIFAR builders that needs TensorFlow."""

    _cifar_info: Any  # as in TFDS's classes, and so the next two
    info: Any
    url_infos: Any

    @property
    def archive_url(self) -> str:
        return self._cifar_info.url

    def _split_generators(self, dl_manager) -> dict[str, _Examples]:
        source = self._cifar_info
        path = dl_manager.download(source.url)
        _check_archive(path, self.url_infos[source.url])
        files = [*source.train_files, *source.test_files, *source.label_files]
        contents = _read_archive(path, [source.prefix + file for file in files])
        for key, file in zip(source.label_keys, source.label_files, strict=True):
            names = contents[source.prefix + file].decode().split("\n")
            self.info.features[key].names = [name for name in names if name]

        def examples(prefix: str, names: Sequence[str]) -> _Examples:
            data = b"".join(contents[source.prefix + name] for name in names)
            width = len(source.label_keys) + int(np.prod(_IMAGE_SHAPE))
            records = np.frombuffer(data, np.uint8).reshape(-1, width)
            return _Examples(prefix, source.label_keys, records)

        return {
            "train": examples("train_", source.train_files),
            "test": examples("test_", source.test_files),
        }


# The module's name is what TFDS records in dataset_info.json and finds the checksums by.
class Cifar10(_ArchiveReader, cifar.Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's `cifar10`."""

    __module__ = cifar.__name__


class Cifar100(_ArchiveReader, cifar.Cifar100, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's `cifar100`."""

    __module__ = cifar.__name__


BUILDERS: dict[str, Any] = {"cifar10": Cifar10, "cifar100": Cifar100}


def prepare(name: str, data_dir: str = "", archive: str = "") -> epath.Path:
    """Downloads (or takes `archive`) and prepares a set; does nothing where it is prepared.

    A finished download is kept in DIR/downloads and used again after an interruption; anything
    half written is removed.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: TFDS's data folder; "" is its default.
      archive: the set's binary archive (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, under
        any name) to use in place of a download.

    Returns:
      The folder with the prepared records.

    Raises:
      UserError: no such archive, wrong checksum, failed download, full disk, or a set in the same
        place that is of another file format or damaged.
    """
    if tfds_source.find_prepared(name, data_dir) is not None:
        folder = tfds_source.check_prepared(name, data_dir)
        print(f"{name} is already prepared in {folder}; nothing to do.")
        return folder
    if archive and not pathlib.Path(archive).expanduser().is_file():
        raise UserError(f"--archive={archive} is not a file.")
    root = tfds_source.default_data_dir(data_dir)
    builder = BUILDERS[name](data_dir=os.fspath(root))
    _remove_remains(root, name)
    if builder.data_path.exists():  # without dataset_info.json, or it would have been found
        print(f"Removing {builder.data_path}, which is incomplete.")
        builder.data_path.rmtree()
    try:
        _run_builder(builder, archive)
    except (requests.RequestException, tfds.download.DownloadError) as error:
        command = tfds_source.preparation_command(name, data_dir)
        raise UserError(
            f"{builder.archive_url} cannot be downloaded ({error}); fetch it by other means and "
            f"run: {command} --archive=FILE"
        ) from error
    except download_manager.NonMatchingChecksumError as error:
        expected = builder.url_infos[builder.archive_url]
        raise UserError(
            f"{archive or builder.archive_url} is not the archive that TFDS knows, "
            f"{expected.filename} with SHA-256 {expected.checksum}; get that one from "
            f"{builder.archive_url}."
        ) from error
    except OSError as error:
        raise UserError(f"{name} cannot be prepared in {root}: {error}.") from error
    finally:
        _remove_remains(root, name)
    folder = tfds_source.check_prepared(name, data_dir)
    print(f"{name} is prepared in {folder}.")
    return folder


def _run_builder(builder: tfds.core.DatasetBuilder, archive: str) -> None:
    """Lets TFDS download (or take `archive`), check, write and rename."""
    url = builder.archive_url
    expected = builder.url_infos[url]
    with tempfile.TemporaryDirectory() as manual_dir:
        if archive:  # TFDS takes a file of the registered name from here instead of the URL
            link = pathlib.Path(manual_dir) / expected.filename
            link.symlink_to(pathlib.Path(archive).expanduser().absolute())
        else:
            downloads = epath.Path(builder.data_dir_root) / "downloads" / builder.name
            if not (downloads / resource.get_dl_fname(url, expected.checksum)).exists():
                _check_reachable(url)
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, force_checksums_validation=True, try_download_gcs=False
            ),
        )


def _check_reachable(url: str) -> None:
    """Fails at once where TFDS would retry in silence for minutes."""
    with requests.get(url, stream=True, timeout=_CONNECT_SECONDS) as response:
        response.raise_for_status()


def _check_archive(path: epath.Path, expected: checksums.UrlInfo) -> None:
    """TFDS trusts a download that it kept from an earlier run by its name alone."""
    if checksums.compute_url_info(path) != expected:
        raise UserError(f"{path} is damaged (its SHA-256 is wrong); delete it and run again.")


def _read_archive(path: epath.Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of the members called `names`."""
    with path.open("rb") as stream, tarfile.open(fileobj=stream) as archive:
        return {
            member.name: stream.read()
            for member in archive
            if member.name in names and (stream := archive.extractfile(member)) is not None
        }


def _remove_remains(root: epath.Path, name: str) -> None:
    """Removes what an interrupted run left: unfinished downloads and unfinished records."""
    for remains in (
        *(root / name).glob("incomplete.*"),
        *(root / "downloads" / name).glob("*.tmp.*"),
    ):
        shutil.rmtree(remains, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ltdd_jax.data.prepare",
        description="Download and prepare a data set for ltdd_jax, without TensorFlow.",
    )
    parser.add_argument("name", choices=sorted(BUILDERS), help="data set")
    parser.add_argument(
        "--data_dir",
        default="",
        help=f"where to keep it (default: {tfds_source.default_data_dir('')})",
    )
    parser.add_argument(
        "--archive", default="", help="the binary-version archive, if you already have it"
    )
    args = parser.parse_args(argv)
    try:
        prepare(args.name, args.data_dir, args.archive)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue.", file=sys.stderr)
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    status = main()
    if status == _INTERRUPTED:  # TFDS's download thread would keep a normal exit waiting
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
