"""A small vision transformer, for cross-architecture evaluation only."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltdd_jax.nets import layers

_HIDDEN_FACTOR = 2  # width of the hidden layer of a block's MLP, relative to the tokens


class ViT(nn.Module):
    """Patches, learned positions, `depth` pre-norm blocks, the mean token, a linear layer.

    The sizes are those of compact transformers for small images (Hassani et al., "Escaping the Big
    Data Paradigm with Compact Transformers", arXiv 2104.05704, ViT-Lite: patches of 4 x 4 pixels,
    four heads, MLPs of twice the width), with mean pooling in place of a class token.

    Attributes:
      num_classes: outputs K.
      width: numbers in a token, a multiple of `num_heads`.
      depth: blocks.
      patch: side of a patch in pixels; rows and columns left over are dropped.
      num_heads: of the attention.
    """

    num_classes: int
    width: int = 128
    depth: int = 4
    patch: int = 4
    num_heads: int = 4

    def setup(self):
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} of a vit is not possible: take a multiple of {self.num_heads}"
            )
        self.patches = layers.Linear(self.width)
        self.blocks = [
            Block(self.width, self.num_heads, name=f"block_{i}") for i in range(self.depth)
        ]
        self.norm = LayerNorm()
        self.positions = Positions(self.width)
        self.classifier = layers.Linear(self.num_classes)

    def embed(self, images):
        """Features [B, width] of images [B, H, W, C], H and W at least `patch`."""
        batch, height, width, channels = images.shape
        rows, cols = height // self.patch, width // self.patch
        if not rows or not cols:
            raise ValueError(
                f"images of {height} x {width} pixels have no patch of {self.patch} x {self.patch}"
            )
        images = images[:, : rows * self.patch, : cols * self.patch]
        images = images.reshape(batch, rows, self.patch, cols, self.patch, channels)
        tokens = images.transpose(0, 1, 3, 2, 4, 5).reshape(batch * rows * cols, -1)
        tokens = self.patches(tokens).reshape(batch, rows * cols, self.width)
        tokens = self.positions(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).mean(axis=1)

    def classify(self, features):
        """Logits [B, K] of features [B, F]."""
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))


class Positions(nn.Module):
    """Adds a learned vector to every token, [B, T, width] -> [B, T, width]."""

    width: int

    @nn.compact
    def __call__(self, tokens):
        init = nn.initializers.normal(0.02)
        table = self.param("embedding", init, (tokens.shape[1], self.width))
        return tokens + table[None]


class Block(nn.Module):
    """LayerNorm - attention and LayerNorm - MLP with GELU, each added to its input."""

    width: int
    num_heads: int

    @nn.compact
    def __call__(self, tokens):
        shape = tokens.shape
        heads = (*shape[:2], self.num_heads, self.width // self.num_heads)

        def linear(name, features, x):
            flat = layers.Linear(features, name=name)(x.reshape(-1, x.shape[-1]))
            return flat.reshape(*x.shape[:-1], features)

        x = LayerNorm(name="attention_norm")(tokens)
        query, key, value = (
            linear(name, self.width, x).reshape(heads) for name in ("query", "key", "value")
        )
        seen = jax.nn.dot_product_attention(query, key, value)
        tokens = tokens + linear("attention_out", self.width, seen.reshape(shape))
        x = LayerNorm(name="mlp_norm")(tokens)
        x = jax.nn.gelu(linear("mlp_in", _HIDDEN_FACTOR * self.width, x))
        return tokens + linear("mlp_out", self.width, x)


class LayerNorm(nn.Module):
    """Normalises every token (biased variance), then scale and bias."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, tokens):
        channels = tokens.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        wide = tokens if tokens.dtype.itemsize >= 4 else tokens.astype(jnp.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        lead = (1,) * (tokens.ndim - 1)
        return normed.astype(tokens.dtype) * scale.reshape(*lead, -1) + bias.reshape(*lead, -1)
