"""Networks that carry statistics: the layer by hand, who moves them, and what may be observed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.experts import train as experts
from ltdd_jax.nets import layers, partition

SHAPE = {"image_shape": (8, 8, 2), "num_classes": 3}
EPSILON = 1e-5


@pytest.fixture(scope="module")
def network():
    return nets.build("convnet_bn", **SHAPE, width=4, depth=2)


@pytest.fixture(scope="module")
def params(network):
    """Parameters with statistics, scales and biases that are all different from their start."""
    made = jax.jit(network.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), made)


def draw_images(num_rows, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(1, 2, (num_rows, *SHAPE["image_shape"])).astype(np.float32)


def convolve(images, layer):
    """3x3 convolution with padding 1 by hand."""
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    return sum(parts) + bias


def test_a_training_step_of_the_layer_by_hand():
    """Breaks when the biased and the unbiased variance change places, or the momentum is 0.9."""
    images = draw_images(5)
    layer = layers.BatchNorm()
    start = {
        "params": {"scale": jnp.array([2.0, -1.0]), "bias": jnp.array([0.5, 3.0])},
        "statistics": {"mean": jnp.array([10.0, 20.0]), "variance": jnp.array([7.0, 5.0])},
    }
    out, moved = jax.jit(lambda v, x: layer.apply(v, x, mutable=["statistics"]))(start, images)
    rows = images.reshape(-1, 2).astype(np.float64)
    mean, biased = rows.mean(axis=0), rows.var(axis=0)
    unbiased = biased * len(rows) / (len(rows) - 1)
    expected = (images - mean) / np.sqrt(biased + EPSILON) * [2, -1] + [0.5, 3]
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    kept = moved["statistics"]
    np.testing.assert_allclose(kept["mean"], 0.9 * np.array([10, 20]) + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(kept["variance"], 0.9 * np.array([7, 5]) + 0.1 * unbiased, rtol=1e-5)
    expected = (images - [10, 20]) / np.sqrt(np.array([7, 5]) + EPSILON) * [2, -1] + [0.5, 3]
    np.testing.assert_allclose(layer.apply(start, images), expected, rtol=1e-4)


def test_padding_rows_count_for_nothing(network, params):
    """Breaks when rows of weight 0, which fill up a short batch, enter its statistics."""
    images = draw_images(5)
    images[3:] = 100
    weights = np.array([1, 1, 1, 0, 0], np.float32) / 3
    padded, after = jax.jit(network.train)(params, images, weights)
    alone, expected = jax.jit(network.train)(params, images[:3])
    chex.assert_trees_all_close(after, expected, rtol=1e-5)
    np.testing.assert_allclose(padded[:3], alone, rtol=1e-4, atol=1e-5)


def test_training_moves_the_statistics_and_nothing_else(network, params):
    """Breaks when `train` normalises with running statistics, or the others do not."""
    images = draw_images(6)
    logits, after = jax.jit(network.train)(params, images)
    trained, before = partition.split_statistics(params)
    chex.assert_trees_all_equal(partition.split_statistics(after)[0], trained)
    into_norm = convolve(images, params["block_0"]["conv"]).reshape(-1, 4)
    moved = after["statistics"]["block_0"]["norm"]
    expected = 0.9 * before["block_0"]["norm"]["mean"] + 0.1 * into_norm.mean(axis=0)
    np.testing.assert_allclose(moved["mean"], expected, rtol=1e-4)
    apply = jax.jit(network.apply)
    assert np.abs(logits - apply(params, images)).max() > 0.01
    np.testing.assert_allclose(
        apply(params, images)[:1], apply(params, images[:1]), rtol=1e-4, atol=1e-5
    )
    backbone, classifier = partition.split(params)
    features = jax.jit(network.embed)(backbone, images)
    np.testing.assert_allclose(
        network.classify(classifier, features), apply(params, images), rtol=1e-4, atol=1e-5
    )


def test_observed_are_the_true_inputs(network, params):
    """Breaks when a layer's output, or another layer's input, is taken for its input."""
    images = draw_images(3)
    logits, inputs = jax.jit(network.observe)(params, images)
    names = ["block_0/conv", "block_0/norm", "block_1/conv", "block_1/norm"]
    assert list(network.observed) == names
    assert [network.observed[name] for name in names] == ["conv", "norm"] * 2
    assert sorted(inputs) == sorted(names)
    into = images.astype(np.float64)
    for block in ("block_0", "block_1"):
        np.testing.assert_allclose(inputs[f"{block}/conv"], into, rtol=1e-4, atol=1e-4)
        into = convolve(into, params[block]["conv"])
        np.testing.assert_allclose(inputs[f"{block}/norm"], into, rtol=1e-4, atol=1e-4)
        kept, learned = params["statistics"][block]["norm"], params[block]["norm"]
        kept, learned = jax.tree.map(np.asarray, (kept, learned))
        into = (into - kept["mean"]) / np.sqrt(kept["variance"] + EPSILON)
        into = into * learned["scale"] + learned["bias"]
        rows, side = len(into), into.shape[1] // 2
        into = np.maximum(into, 0).reshape(rows, side, 2, side, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(logits, network.apply(params, images), rtol=1e-5, atol=1e-5)


def test_networks_without_statistics_keep_the_same_interface():
    network = nets.build("convnet", **SHAPE, width=4, depth=1)
    params, images = jax.jit(network.init)(jax.random.key(0)), draw_images(2)
    assert not network.has_statistics and "statistics" not in params
    logits, after = jax.jit(network.train)(params, images, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(logits, jax.jit(network.apply)(params, images), rtol=1e-6)
    chex.assert_trees_all_equal(after, params)
    assert network.observed == {"block_0/conv": "conv", "block_0/norm": "norm"}


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("convnet_bn", {}, 320_010),
        ("resnet18_bn", {}, 11_173_962),
        ("vgg11_bn", {}, 9_231_114),
        ("alexnet_bn", {}, 1_872_202 + 2 * (128 + 192 + 256 + 192 + 192)),
        ("resnet32_bn", {}, 7_386_186),  # said to have 7.4 million
        ("resnet32_bn", {"widths": (16, 32, 64)}, 464_154),  # 0.46 million in He et al., table 6
    ],
)
def test_number_of_parameters(name, options, size):
    """Breaks when a batch norm is missing, or statistics count as parameters."""
    network = nets.build(name, image_shape=(32, 32, 3), num_classes=10, **options)
    assert network.has_statistics
    assert network.sizes.num_parameters == size
    kinds = list(network.observed.values())
    convolutions = {"resnet32_bn": 31, "resnet18_bn": 20, "vgg11_bn": 8, "alexnet_bn": 5}
    assert kinds.count("conv") == kinds.count("norm") == convolutions.get(name, 3)


def test_statistics_stay_float32_in_half_precision(params):
    narrow = nets.build("convnet_bn", **SHAPE, width=4, depth=2, dtype="bfloat16")
    logits, after = jax.jit(narrow.train)(params, draw_images(4))
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}
    assert logits.dtype == jnp.float32
    _, inputs = jax.jit(narrow.observe)(params, draw_images(4))
    assert {leaf.dtype for leaf in jax.tree.leaves(inputs)} == {jnp.dtype("float32")}


def test_evaluation_trains_them_without_decay(network):
    """Three epochs at the rate 0, the whole set a batch: only the statistics may move.

    Breaks when weight decay or momentum reaches a statistic, or the padded network is not trained.
    """
    images, label_logits = draw_images(5), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    evaluator = evaluation.make_evaluator(
        network, lambda key, rows: rows, num_rows=5, num_epochs=2, batch_size=8, momentum=0.9,
        weight_decay=0.5,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(3), 2)
    start = jax.jit(evaluator.init)(keys)
    assert "statistics" not in str(jax.tree.structure(start.opt_state))
    state, _ = jax.jit(evaluator.run_epochs)(
        keys, jnp.arange(3), start, (images, label_logits), jnp.zeros((2, 3))
    )
    chex.assert_trees_all_equal(*(partition.split_statistics(s.params)[0] for s in (start, state)))
    for lane in range(2):
        layer = jax.tree.map(lambda x, i=lane: x[i], start.params["block_0"]["conv"])
        mean = convolve(images, layer).reshape(-1, 4).mean(axis=0)
        kept = state.params["statistics"]["block_0"]["norm"]["mean"][lane]
        np.testing.assert_allclose(kept, (1 - 0.9**3) * mean, rtol=1e-3, atol=1e-5)


def test_experts_keep_those_of_the_unperturbed_weights(network):
    """Breaks when GSAM's second pass, at the perturbed weights, moves the statistics."""
    images, labels = draw_images(5), np.array([0, 1, 2, 0, 1], np.int32)
    recipe = experts.Recipe(
        num_epochs=1, batch_size=8, learning_rate=0.1, momentum=0.0, weight_decay=0.5, rho=0.5,
        alpha=0.3, adaptive=False,
    )  # fmt: skip
    expert = experts.make_representation_expert(network, recipe, lambda key, rows: rows, 5)
    start, frozen = expert.init(jax.random.key(0), {})
    state, _ = jax.jit(expert.run_epoch)(
        jax.random.key(0), jnp.int32(0), start, frozen, (images, labels)
    )
    mean = convolve(images, start.params["block_0"]["conv"]).reshape(-1, 4).mean(axis=0)
    kept = state.params["statistics"]["block_0"]["norm"]["mean"]
    np.testing.assert_allclose(kept, 0.1 * mean, rtol=1e-3, atol=1e-5)
    before, after = (s.params["block_0"]["conv"]["kernel"] for s in (start, state))
    assert np.abs(after - before).max() > 0
