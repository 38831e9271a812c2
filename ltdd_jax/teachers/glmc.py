"""GLMC: two mixed views of every pair of images that are to agree, and two heads.

Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-tailed Visual
Recognitions", CVPR 2023, as the teachers of Cui et al. (AAAI 2026) are trained. In epoch t of E

    L = (1 - (t/E)²) Σ_views CE(fc, y) + (t/E)² Σ_views CE(fc_cb, y^w)
        - γ [cos(p₁, z₂) + cos(p₂, z₁)]

with y = λ y_a + (1 - λ) y_b, its class-weighted twin y^w, projections z and predictions p, and no
gradient through the z that p is compared with. fc_cb is the network's own classifier and infers.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from ltdd_jax.data import crops
from ltdd_jax.nets import Network, layers, partition
from ltdd_jax.types import Array, AugmentFn, Params

HEADS = "heads"  # beside the network's parameters: fc, projection, prediction
_WIDTH = 128  # of projection and prediction


@flax.struct.dataclass
class Views:
    """Two mixtures of the same pairs.

    Attributes:
      first: [B, H, W, C], a pair's pictures in the shares λ and 1 - λ (mixup).
      second: [B, H, W, C], the first picture with a patch of the other (cutmix).
      share: float32 scalar λ in [0, 1), weight of the first picture's label in both.
    """

    first: Array
    second: Array
    share: Array


def make_views(augment: AugmentFn) -> Callable:
    """Builds (key, rows [2B, H, W, C], pictures and then their partners) -> `Views`.

    One λ ~ U(0, 1) for a batch; the patch has the area share 1 - λ before it is cut at the
    borders, and the label keeps λ whatever is cut off (as published).
    """

    def mix(key, rows):
        keys = jax.random.split(key, 6)
        half = len(rows) // 2
        share = jax.random.uniform(keys[0], (), jnp.float32)
        pictures, partners = rows[:half], rows[half:]
        first = [augment(k, x) for k, x in zip(keys[1:3], (pictures, partners), strict=True)]
        second = [augment(k, x) for k, x in zip(keys[3:5], (pictures, partners), strict=True)]
        centre = jax.random.uniform(keys[5], (2, 1), jnp.float32)
        patch = crops.place_patches(share[None], centre, rows.shape[1:3])
        weight = share.astype(rows.dtype)
        return Views(
            first=weight * first[0] + (1 - weight) * first[1],
            second=crops.mix_patches(*second, patch),
            share=share,
        )

    return mix


def add_heads(key, params: Params) -> Params:
    """The network's parameters with those of the further heads beside them."""
    num_features, num_classes = params[partition.CLASSIFIER]["kernel"].shape
    shapes = {
        "fc": (num_features, num_classes),
        "projection": (num_features, _WIDTH),
        "prediction": (_WIDTH, _WIDTH),
    }
    heads = {}
    for name, head_key in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        init = layers.uniform_fan_in(shapes[name][0])
        kernel_key, bias_key = jax.random.split(head_key)
        kernel, bias = init(kernel_key, shapes[name]), init(bias_key, shapes[name][1:])
        heads[name] = {"kernel": kernel, "bias": bias}
    return {**params, HEADS: heads}


def drop_heads(params: Params) -> Params:
    """The network's own parameters; inverse of `add_heads`, and nothing without heads."""
    return {name: part for name, part in params.items() if name != HEADS}


def make_loss(network: Network, class_weights: Array, *, similarity: float = 1.0) -> Callable:
    """Builds the loss of one batch.

    Args:
      network: whose classifier is fc_cb.
      class_weights: [K], of `balance.class_weights`.
      similarity: γ.

    Returns:
      `loss(params, (progress, views), labels, weights) -> (scalar, params)` with `progress` the
      scalar (t/E)², labels int32 [2B], those of the pictures and then of their partners, and
      weights that are not used: all rows count alike.
    """

    def loss(params, inputs, labels, weights):
        del weights
        progress, views = inputs
        num_classes = len(class_weights)
        one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
        half = len(labels) // 2
        target = views.share * one_hot[:half] + (1 - views.share) * one_hot[half:]
        weighted = target * class_weights[None]  # mixing weighted labels weighs the mixture
        heads, own = params[HEADS], drop_heads(params)
        plain = balanced = jnp.float32(0)
        projections, predictions = [], []
        for view in (views.first, views.second):
            features, own = network.train_embed(own, view)
            plain += _cross_entropy(_apply(heads["fc"], features), target)
            balanced += _cross_entropy(network.classify(own, features), weighted)
            projections.append(_apply(heads["projection"], features))
            predictions.append(_apply(heads["prediction"], projections[-1]))
        alike = _cosine(predictions[0], projections[1]) + _cosine(predictions[1], projections[0])
        value = (1 - progress) * plain + progress * balanced - similarity * alike
        return value, {**own, HEADS: heads}

    return loss


def _apply(head, inputs):
    return inputs @ head["kernel"] + head["bias"][None]


def _cross_entropy(logits, targets):
    return -(targets * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1).mean()


def _cosine(predictions, projections):
    """Mean cosine of rows; the projections are what is aimed at and get no gradient."""
    projections = jax.lax.stop_gradient(projections)
    norms = jnp.linalg.norm(predictions, axis=-1) * jnp.linalg.norm(projections, axis=-1)
    return ((predictions * projections).sum(axis=-1) / jnp.maximum(norms, 1e-8)).mean()
