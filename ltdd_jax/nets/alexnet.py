"""AlexNet for small images, without norms or with batch norm (method section "Networks")."""

import flax.linen as nn
import jax

from ltdd_jax.nets import layers

# (channels, side of the kernel, whether a max pool 2x2 follows)
STAGES = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


class AlexNet(nn.Module):
    """Five convolutions, each with ReLU and perhaps a norm, three max pools, a linear layer.

    Attributes:
      num_classes: outputs K.
      stem_stride: stride of the first convolution; 2 for images of 64 x 64.
      form: how convolutions are computed, see `convolution.conv2d`.
      norm: of `layers.NORMS`, or "none".
    """

    num_classes: int
    stem_stride: int = 1
    form: str = "auto"
    norm: str = "none"

    def setup(self):
        self.convs = [
            layers.Conv(
                width,
                kernel_size=side,
                stride=self.stem_stride if i == 0 else 1,
                padding=side // 2,
                form=self.form,
                name=f"conv_{i}",
            )
            for i, (width, side, _) in enumerate(STAGES)
        ]
        self.norms = [
            layers.NORMS[self.norm](name=f"norm_{i}") if self.norm != "none" else None
            for i in range(len(STAGES))
        ]
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, F] of images [B, H, W, C], flattened in (row, column, channel) order."""
        for conv, norm, (_, _, pooled) in zip(self.convs, self.norms, STAGES, strict=True):
            images = conv(images)
            images = jax.nn.relu(images if norm is None else norm(images))
            if pooled:
                images = layers.max_pool(images, 2)
        return layers.flatten(images)

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))
