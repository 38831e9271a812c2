"""Residual networks for small images: ResNet18 (method section "Networks") and ResNet32."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltdd_jax.nets import layers

STAGES = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
_BLOCKS = 5  # of each stage of ResNet32: 6 x 5 + 2 layers


class ResNet18(nn.Module):
    """A 3x3 stem, eight residual blocks (width, stride), a linear layer.

    Attributes:
      num_classes: outputs K.
      stem_stride: stride of the first convolution; 2 for images of 64 x 64.
      average_pooling: False: blocks shrink the map by strided convolutions and the last map is
        averaged. True (ResNet18_AP): they shrink it by 2x2 means and the last map is flattened.
      form: how convolutions are computed, see `convolution.conv2d`.
      norm: of `layers.NORMS`.
    """

    num_classes: int
    stem_stride: int = 1
    average_pooling: bool = False
    form: str = "auto"
    norm: str = "instance"

    def setup(self):
        self.stem_conv = layers.Conv(
            STAGES[0][0], stride=self.stem_stride, use_bias=False, form=self.form
        )
        self.stem_norm = layers.NORMS[self.norm]()
        self.blocks = [
            Block(width, stride, self.average_pooling, self.form, self.norm, name=f"block_{i}")
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


class ResNet32(nn.Module):
    """The CIFAR network of He et al. (CVPR 2016, section 4.2): stem, 3 x 5 residual blocks, mean.

    Its shortcuts have no parameters.

    Attributes:
      num_classes: outputs K.
      widths: channels of the three stages; (16, 32, 64) is the original.
      form: how convolutions are computed, see `convolution.conv2d`.
      norm: of `layers.NORMS`.
    """

    num_classes: int
    widths: tuple[int, int, int] = (64, 128, 256)
    form: str = "auto"
    norm: str = "batch"

    def setup(self):
        self.stem_conv = layers.Conv(self.widths[0], use_bias=False, form=self.form)
        self.stem_norm = layers.NORMS[self.norm]()
        stages = [(stage, block) for stage in range(3) for block in range(_BLOCKS)]
        self.blocks = [
            Block(
                self.widths[stage],
                2 if stage and not block else 1,
                form=self.form,
                norm=self.norm,
                plain_shortcut=True,
                name=f"block_{stage * _BLOCKS + block}",
            )
            for stage, block in stages
        ]
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, F] of images [B, H, W, C], means over the last map."""
        images = jax.nn.relu(self.stem_norm(self.stem_conv(images)))
        for block in self.blocks:
            images = block(images)
        return images.mean(axis=(1, 2))

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))


class Block(nn.Module):
    """Conv 3x3 - norm - ReLU - conv 3x3 - norm, added to the shortcut, then ReLU.

    Where the shape changes the shortcut is a 1x1 convolution with norm or, `plain_shortcut`, every
    `stride`-th pixel with channels of zeros on both sides; else it is the identity.
    """

    width: int
    stride: int = 1
    average_pooling: bool = False
    form: str = "auto"
    norm: str = "instance"
    plain_shortcut: bool = False

    @nn.compact
    def __call__(self, images):
        stride = 1 if self.average_pooling else self.stride
        norm = layers.NORMS[self.norm]
        conv = layers.Conv(self.width, stride=stride, use_bias=False, form=self.form, name="conv1")
        out = self._shrink(jax.nn.relu(norm(name="norm1")(conv(images))))
        conv = layers.Conv(self.width, use_bias=False, form=self.form, name="conv2")
        out = norm(name="norm2")(conv(out))
        if self.plain_shortcut:
            more = self.width - images.shape[-1]
            images = images[:, :: self.stride, :: self.stride]
            images = jnp.pad(images, [(0, 0)] * 3 + [(more // 2, more - more // 2)])
        elif self.stride != 1 or images.shape[-1] != self.width:
            conv = layers.Conv(
                self.width,
                kernel_size=1,
                stride=stride,
                padding=0,
                use_bias=False,
                form=self.form,
                name="shortcut_conv",
            )
            images = norm(name="shortcut_norm")(self._shrink(conv(images)))
        return jax.nn.relu(out + images)

    def _shrink(self, images):
        if self.average_pooling and self.stride != 1:
            return layers.average_pool(images, self.stride)
        return images
