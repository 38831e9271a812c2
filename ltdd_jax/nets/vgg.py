"""VGG11 for small images, with instance or batch norm (method section "Networks")."""

import flax.linen as nn
import jax

from ltdd_jax.nets import layers

WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
POOLED = (True, True, False, True, False, True, False, True)  # max pool 2x2 after the layer


class VGG11(nn.Module):
    """Eight times Conv 3x3 - norm - ReLU, five max pools, a linear layer.

    Attributes:
      num_classes: outputs K.
      final_stride: the last map is read at every `final_stride`-th row and column; 2 for images of
        64 x 64, where the reference keeps one corner of the 2 x 2 map.
      form: how convolutions are computed, see `convolution.conv2d`.
      norm: of `layers.NORMS`.
    """

    num_classes: int
    final_stride: int = 1
    form: str = "auto"
    norm: str = "instance"

    def setup(self):
        self.convs = [
            layers.Conv(width, form=self.form, name=f"conv_{i}") for i, width in enumerate(WIDTHS)
        ]
        self.norms = [layers.NORMS[self.norm](name=f"norm_{i}") for i in range(len(WIDTHS))]
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, F] of images [B, H, W, C], flattened in (row, column, channel) order."""
        for conv, norm, pooled in zip(self.convs, self.norms, POOLED, strict=True):
            images = jax.nn.relu(norm(conv(images)))
            if pooled:
                images = layers.max_pool(images, 2)
        return layers.flatten(images[:, :: self.final_stride, :: self.final_stride])

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))
