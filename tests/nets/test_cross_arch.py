"""The networks of the cross-architecture evaluation against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.nets import layers, partition
from tests.golden_files import relative_error
from tests.reference import torch_cross_arch, torch_layout


@pytest.mark.golden
@pytest.mark.parametrize("name", torch_cross_arch.NETWORKS)
def test_golden_logits(name):
    """Breaks when a layer, its order, a stride or the flatten order departs from the reference."""
    ours, params, images, logits = torch_cross_arch.load(name)
    images = torch_layout.to_nhwc(images)
    net = nets.build(ours, image_shape=images.shape[1:], num_classes=logits.shape[1])
    expected = jax.eval_shape(net.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    backbone, classifier = partition.split(params)
    features = jax.jit(net.embed)(backbone, images)
    assert relative_error(net.classify(classifier, features), logits) < 1e-4


@pytest.mark.parametrize(
    ("name", "side", "num_classes", "size"),
    [
        ("alexnet", 32, 10, 1_872_202),
        ("alexnet", 32, 100, 2_148_772),
        ("vgg11", 32, 10, 9_231_114),
        ("vgg11", 32, 100, 9_277_284),
        ("resnet18", 32, 10, 11_173_962),
        ("resnet18", 32, 100, 11_220_132),
        ("resnet18_ap", 32, 10, 11_250_762),
        ("mlp", 32, 10, 411_146),
        ("lenet", 32, 10, 62_006),
        ("lenet_64", 64, 10, 62_006),
    ],
)
def test_published_number_of_parameters(name, side, num_classes, size):
    net = nets.build(name, image_shape=(side, side, 3), num_classes=num_classes)
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mlp"])
def test_small_gray_images_are_accepted(name):
    net = nets.build(name, image_shape=(8, 8, 1), num_classes=3)
    params = jax.eval_shape(net.init, jax.random.key(0))
    logits = jax.eval_shape(net.apply, params, jnp.zeros((5, 8, 8, 1)))
    assert logits.shape == (5, 3)


@pytest.mark.parametrize("name", ["vgg11", "lenet"])
def test_too_small_images_are_refused(name):
    with pytest.raises(ValueError, match="too small"):
        nets.build(name, image_shape=(8, 8, 1), num_classes=3)


def test_max_pool_takes_maxima_and_drops_the_rest():
    images = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    pooled = layers.max_pool(images, 2)
    assert pooled.shape == (2, 2, 2, 3)
    for i, j in np.ndindex(2, 2):
        window = images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_array_equal(pooled[:, i, j], window.max(axis=(1, 2)))
