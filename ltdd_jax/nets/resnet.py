"""ResNet18 for small images, with instance norm (method section "Networks")."""

import flax.linen as nn
import jax

from ltdd_jax.nets import layers

STAGES = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


class ResNet18(nn.Module):
    """A 3x3 stem, eight residual blocks (width, stride), a linear layer.

    Attributes:
      num_classes: outputs K.
      stem_stride: stride of the first convolution; 2 for images of 64 x 64.
      average_pooling: False: blocks shrink the map by strided convolutions and the last map is
        averaged. True (ResNet18_AP): they shrink it by 2x2 means and the last map is flattened.
      form: how convolutions are computed, see `convolution.conv2d`.
    """

    num_classes: int
    stem_stride: int = 1
    average_pooling: bool = False
    form: str = "auto"

    def setup(self):
        self.stem_conv = layers.Conv(
            STAGES[0][0], stride=self.stem_stride, use_bias=False, form=self.form
        )
        self.stem_norm = layers.InstanceNorm()
        self.blocks = [
            Block(width, stride, self.average_pooling, self.form, name=f"block_{i}")
            for i, (width, stride) in enumerate(STAGES)
        ]
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, F] of images [B, H, W, C], flattened in (row, column, channel) order."""
        images = jax.nn.relu(self.stem_norm(self.stem_conv(images)))
        for block in self.blocks:
            images = block(images)
        return layers.flatten(images) if self.average_pooling else images.mean(axis=(1, 2))

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))


class Block(nn.Module):
    """Conv 3x3 - norm - ReLU - conv 3x3 - norm, added to the shortcut, then ReLU.

    The shortcut is a 1x1 convolution with norm where the shape changes, else the identity.
    """

    width: int
    stride: int = 1
    average_pooling: bool = False
    form: str = "auto"

    @nn.compact
    def __call__(self, images):
        stride = 1 if self.average_pooling else self.stride
        conv = layers.Conv(self.width, stride=stride, use_bias=False, form=self.form, name="conv1")
        out = self._shrink(jax.nn.relu(layers.InstanceNorm(name="norm1")(conv(images))))
        conv = layers.Conv(self.width, use_bias=False, form=self.form, name="conv2")
        out = layers.InstanceNorm(name="norm2")(conv(out))
        if self.stride != 1 or images.shape[-1] != self.width:
            conv = layers.Conv(
                self.width,
                kernel_size=1,
                stride=stride,
                padding=0,
                use_bias=False,
                form=self.form,
                name="shortcut_conv",
            )
            images = layers.InstanceNorm(name="shortcut_norm")(self._shrink(conv(images)))
        return jax.nn.relu(out + images)

    def _shrink(self, images):
        if self.average_pooling and self.stride != 1:
            return layers.average_pool(images, self.stride)
        return images
