"""Multilayer perceptron (method section "Networks")."""

import flax.linen as nn
import jax

from ltdd_jax.nets import layers


class MLP(nn.Module):
    """Two hidden layers of `width` with ReLU, then a linear layer.

    Attributes:
      num_classes: outputs K.
      width: units of each hidden layer.
    """

    num_classes: int
    width: int = 128

    def setup(self):
        self.hidden = [layers.Linear(self.width, name=f"hidden_{i}") for i in range(2)]
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, width] of images [B, H, W, C]."""
        features = layers.flatten(images)
        for layer in self.hidden:
            features = jax.nn.relu(layer(features))
        return features

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))
