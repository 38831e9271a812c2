"""array_record in the layout of TensorFlow Datasets, written and read without TensorFlow."""

import contextlib
import errno
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ltdd_jax.dataset import DistilledDataset
from ltdd_jax.export import card

_NAME = "distilled"
_REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
IMAGES = 'np.stack([row["network_input"] for row in rows])'
_LOAD = f"""\
import numpy as np
import tensorflow_datasets as tfds

rows = tfds.data_source("{_NAME}", split="train", data_dir=".")
pixels = np.stack([row["image"] for row in rows])
labels = np.array([row["label"] for row in rows])
soft_labels = np.stack([row["soft_label"] for row in rows])
"""


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes the rows of a set in their order.

    Args:
      dataset: the distilled set.
      **options: of TFDS's builders.
    """

    name = _NAME
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, dataset: DistilledDataset, **options: Any):
        self._dataset = dataset
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=self._dataset.pixels.shape[1:]),
            "label": tfds.features.ClassLabel(names=card.tell_apart(self._dataset.class_names)),
            "soft_label": tfds.features.Tensor(
                shape=(self._dataset.num_classes,), dtype=np.float32
            ),
            "network_input": tfds.features.Tensor(
                shape=self._dataset.images.shape[1:], dtype=np.float32
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="A distilled set, written by ltdd_jax.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        probabilities = self._dataset.label_probabilities
        for row, label in enumerate(self._dataset.labels.tolist()):
            yield (
                row,
                {
                    "image": card.encode_png(self._dataset.pixels[row]),
                    "label": label,
                    "soft_label": probabilities[row],
                    "network_input": self._dataset.images[row],
                },
            )


def write(dataset: DistilledDataset, folder: pathlib.Path) -> None:
    """Writes distilled/1.0.0/ and the whitening; raises OSError if it cannot."""
    builder = _Builder(dataset, data_dir=str(folder), file_format="array_record")
    # TFDS tells of a download, of a temporary folder and of shuffling, none of which are of use.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        except RuntimeError as error:  # what array_record's writer makes of a failed write
            for number in _REASONS:
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number)) from error
            raise
    card.write_numbers(dataset, folder)


def explain_loading(dataset: DistilledDataset) -> str:
    """Code that reads the folder."""
    del dataset
    return _LOAD
