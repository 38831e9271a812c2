"""The ConvNet against the reference, and what its users rely on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.nets import convolution, partition
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout


@pytest.mark.golden
@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize("name", ["convnet_d3_w16", "convnet_d3_w128", "convnet_d4_w16_64"])
def test_golden_logits_and_embedding(name, form):
    """Breaks when a layer, its order, or the flatten order departs from the reference."""
    golden = load_golden(name)
    num_classes, side = golden["logits"].shape[1], golden["x"].shape[-1]
    shape = dict(num_classes=num_classes, side=side)
    width, depth = torch_layout.convnet_shapes(golden["params_flat"].size, **shape)
    params = torch_layout.convnet_from_flat(
        golden["params_flat"], width=width, depth=depth, **shape
    )
    images = torch_layout.to_nhwc(golden["x"])
    net = nets.build(
        "convnet",
        image_shape=images.shape[1:],
        num_classes=num_classes,
        width=width,
        depth=depth,
        form=form,
    )
    features = jax.jit(net.embed)(params, images)
    final = side >> depth
    embedding = golden["embedding"].reshape(-1, width, final, final)
    expected = torch_layout.to_nhwc(embedding).reshape(len(images), -1)
    assert relative_error(features, expected) < 1e-5
    assert relative_error(jax.jit(net.apply)(params, images), golden["logits_f64"]) < 1e-5
    backbone, classifier = partition.split(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(backbone))
    assert size == golden["classifier_start"]
    assert jax.tree.all(jax.tree.map(np.array_equal, partition.merge(backbone, classifier), params))


def test_initial_parameters_have_the_published_number_and_range():
    """Breaks when the initialisation leaves U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    net = nets.build("convnet", image_shape=(32, 32, 3), num_classes=10, width=128, depth=3)
    params = net.init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 320_010
    bound = (128 * 9) ** -0.5
    kernel = np.asarray(params["block_1"]["conv"]["kernel"])
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.std() * np.sqrt(3) / bound - 1) < 0.01
    assert np.abs(params["block_1"]["conv"]["bias"]).max() <= bound
    assert np.abs(params["classifier"]["bias"]).max() <= 2048**-0.5


def test_partition_follows_names_not_positions():
    params = {"aaa": {"x": 1}, "classifier": {"kernel": 2, "bias": 3}, "zzz": {"classifier": 4}}
    backbone, classifier = partition.split(params)
    assert classifier == {"classifier": {"kernel": 2, "bias": 3}}
    assert backbone == {"aaa": {"x": 1}, "zzz": {"classifier": 4}}


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="too small"):
        nets.build("convnet", image_shape=(4, 4, 1), num_classes=3, width=4, depth=3)


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="convnet"):
        nets.build("convent", image_shape=(8, 8, 1), num_classes=3)


def test_any_channel_count_and_odd_sides():
    net = nets.build("convnet", image_shape=(9, 13, 2), num_classes=3, width=4, depth=2)
    params = net.init(jax.random.key(0))
    assert net.apply(params, jnp.ones((5, 9, 13, 2))).shape == (5, 3)
