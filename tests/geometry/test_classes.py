"""Norms, shares and cosines by hand; gradients of a linear classifier by their formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import geometry


def test_norms_are_of_the_columns():
    kernel = np.float32([[3, 0, 1], [4, 2, 1]])
    snapshots = [{"classifier": {"kernel": scale * kernel, "bias": np.ones(3)}} for scale in (1, 2)]
    expected = [[5, 2, np.sqrt(2)], [10, 4, 2 * np.sqrt(2)]]
    np.testing.assert_allclose(geometry.classifier_norms(iter(snapshots)), expected, rtol=1e-6)


def apply(params, images):
    return images.reshape(len(images), -1) @ params["kernel"]


class_gradients = jax.jit(geometry.class_gradients, static_argnums=(0, 4, 5))


def make_problem():
    """Six images of three values, classes 0, 0, 0, 0, 1, 2."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(6, 1, 1, 3)).astype(np.float32)
    params = {"kernel": jnp.asarray(generator.normal(size=(3, 3)), jnp.float32)}
    return params, images, np.array([0, 0, 0, 0, 1, 2], np.int32)


def test_gradients_of_classes_are_those_of_the_formula():
    """xᵀ (p - y) / N over the rows of a class; breaks when a class is divided by its own count."""
    params, images, labels = make_problem()
    found = class_gradients(apply, params, images, labels, 3)["kernel"]
    rows = images.reshape(6, 3).astype(np.float64)
    logits = rows @ np.asarray(params["kernel"], np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = probabilities - np.eye(3)[labels]
    for k in range(3):
        chosen = labels == k
        np.testing.assert_allclose(found[k], rows[chosen].T @ error[chosen] / 6, atol=1e-6)


def test_batches_add_up():
    params, images, labels = make_problem()
    whole = class_gradients(apply, params, images, labels, 3)
    parts = [
        class_gradients(apply, params, images[rows], labels[rows], 3, 6)
        for rows in (slice(0, 2), slice(2, 6))
    ]
    np.testing.assert_allclose(parts[0]["kernel"] + parts[1]["kernel"], whole["kernel"], atol=1e-6)


# Gradients of three classes in two leaves: (3, 0), (0, 4), (-1, 0).
GRADIENTS = {"a": jnp.array([[3.0], [0.0], [-1.0]]), "b": jnp.array([[[0.0]], [[4.0]], [[0.0]]])}


def test_shares_by_hand():
    """The whole gradient is (2, 4); the third class is 1/8 of the length and works against it."""
    shares = geometry.gradient_shares(GRADIENTS)
    np.testing.assert_allclose(shares.length, [3 / 8, 4 / 8, 1 / 8], rtol=1e-6)
    np.testing.assert_allclose(shares.progress, [6 / 20, 16 / 20, -2 / 20], rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([0], [1], 0), ([0], [2], -1), ([0, 1], [0], 0.6), ([0, 1, 2], [1], 4 / np.sqrt(20))],
)
def test_cosine_by_hand(first, second, expected):
    assert geometry.group_cosine(GRADIENTS, first, second) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("first", "second", "empty"), [([], [1], "first"), ([0], [], "second")])
def test_a_group_without_classes_is_named(first, second, empty):
    """Breaks when a set without a tail gets an error of indices, or NaN, for an answer."""
    with pytest.raises(ValueError, match=f"{empty} has no class"):
        geometry.group_cosine(GRADIENTS, first, second)
