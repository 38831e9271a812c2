"""ConvNet, the network of the distillation literature (method section "Experiments")."""

import flax.linen as nn
import jax

from ltdd_jax.nets import layers


class ConvNet(nn.Module):
    """`depth` blocks of Conv 3x3 - norm - ReLU - average pool 2x2, then a linear layer.

    Attributes:
      num_classes: outputs K.
      width: channels of every block.
      depth: number of blocks; the side is halved by each.
      form: how convolutions are computed, see `convolution.conv2d`.
      norm: of `layers.NORMS`.
    """

    num_classes: int
    width: int = 128
    depth: int = 3
    form: str = "auto"
    norm: str = "instance"

    def setup(self):
        self.blocks = [
            Block(self.width, self.form, self.norm, name=f"block_{i}") for i in range(self.depth)
        ]
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, F] of images [B, H, W, C], flattened in (row, column, channel) order."""
        for block in self.blocks:
            images = block(images)
        return layers.flatten(images)

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))


class Block(nn.Module):
    """Conv 3x3 - norm - ReLU - average pool 2x2."""

    width: int
    form: str = "auto"
    norm: str = "instance"

    @nn.compact
    def __call__(self, images):
        images = layers.Conv(self.width, form=self.form, name="conv")(images)
        images = layers.NORMS[self.norm](name="norm")(images)
        return layers.average_pool(jax.nn.relu(images), 2)
