"""A tiny data set of TensorFlow Datasets, prepared without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class Little(tfds.core.GeneratorBasedBuilder):
    """Three classes of 6 x 6 pixels, in the layout of CIFAR."""

    name = "little"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(6, 6, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._examples(split) for split in ("train", "test")}

    def _generate_examples(self):
        raise AssertionError("not used")

    def _examples(self, split):
        generator = np.random.default_rng(len(split))
        for number in range(30):
            buffer = io.BytesIO()
            pixels = generator.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).save(buffer, format="PNG")
            yield (
                number,
                {
                    "id": f"{split}_{number:05d}",
                    "image": buffer.getvalue(),
                    "label": number % 3,
                },
            )
