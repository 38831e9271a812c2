"""LeNet (method section "Networks")."""

import flax.linen as nn
import jax

from ltdd_jax.nets import layers


class LeNet(nn.Module):
    """Two unpadded 5x5 convolutions with ReLU and max pool, two hidden layers, a linear layer.

    Attributes:
      num_classes: outputs K.
      stem_stride: stride of the first convolution; 2 for images of 64 x 64.
      form: how convolutions are computed, see `convolution.conv2d`.
    """

    num_classes: int
    stem_stride: int = 1
    form: str = "auto"

    def setup(self):
        shape = dict(kernel_size=5, padding=0, form=self.form)
        self.conv_0 = layers.Conv(6, stride=self.stem_stride, **shape)
        self.conv_1 = layers.Conv(16, **shape)
        self.hidden_0 = layers.Linear(120)
        self.hidden_1 = layers.Linear(84)
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, 84] of images [B, H, W, C]."""
        for conv in (self.conv_0, self.conv_1):
            images = layers.max_pool(jax.nn.relu(conv(images)), 2)
        features = jax.nn.relu(self.hidden_0(layers.flatten(images)))
        return jax.nn.relu(self.hidden_1(features))

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))
