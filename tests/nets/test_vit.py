"""Breaks when the transformer's forward pass is not the one written out here in NumPy."""

import jax
import numpy as np
import pytest

from ltdd_jax import nets

SIDE, WIDTH, DEPTH, HEADS = 9, 8, 2, 4  # one row and one column of pixels are left over


def build(**options):
    return nets.build("vit", image_shape=(SIDE, SIDE, 2), num_classes=3, **options)


def normalise(x, params):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / scale * params["scale"] + params["bias"]


def affine(x, params):
    return x @ params["kernel"] + params["bias"]


def attend(x, block):
    query, key, value = (affine(x, block[name]) for name in ("query", "key", "value"))
    size, out = WIDTH // HEADS, []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ value[:, part])
    return affine(np.concatenate(out, axis=-1), block["attention_out"])


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def forward(params, image):
    patches = [
        image[4 * row : 4 * row + 4, 4 * col : 4 * col + 4].reshape(-1)
        for row in range(SIDE // 4)
        for col in range(SIDE // 4)
    ]
    x = affine(np.stack(patches), params["patches"]) + params["positions"]["embedding"]
    for i in range(DEPTH):
        block = params[f"block_{i}"]
        x = x + attend(normalise(x, block["attention_norm"]), block)
        hidden = gelu(affine(normalise(x, block["mlp_norm"]), block["mlp_in"]))
        x = x + affine(hidden, block["mlp_out"])
    return affine(normalise(x, params["norm"]).mean(0), params["classifier"])


def test_logits_equal_the_forward_pass_written_out():
    net = build(width=WIDTH, depth=DEPTH)
    params = net.init(jax.random.key(0))
    rng = np.random.default_rng(0)  # scales and biases of the norms are not left at 1 and 0
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)
    images = rng.normal(size=(3, SIDE, SIDE, 2)).astype(np.float32)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = np.stack([forward(wide, image) for image in images.astype(np.float64)])
    found = jax.jit(net.apply)(params, images)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    features = net.embed(params, images)
    np.testing.assert_allclose(net.classify(params, features), found, rtol=1e-4, atol=1e-5)


def test_images_smaller_than_a_patch_and_odd_widths_are_refused():
    with pytest.raises(ValueError, match="no patch"):
        nets.build("vit", image_shape=(3, 9, 1), num_classes=3)
    with pytest.raises(ValueError, match="multiple of 4"):
        build(width=10)
