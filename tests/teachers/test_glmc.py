"""GLMC's views and loss against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.teachers import balance, glmc

SIDE, CLASSES, PAIRS = 6, 3, 5


@pytest.fixture(scope="module")
def network():
    return nets.build("mlp", image_shape=(SIDE, SIDE, 1), num_classes=CLASSES, width=7)


@pytest.fixture(scope="module")
def params(network):
    key = jax.random.key(0)
    return jax.jit(lambda k: glmc.add_heads(k, network.init(jax.random.fold_in(k, 1))))(key)


def make_rows(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2 * PAIRS, SIDE, SIDE, 1)).astype(np.float32)


LABELS = np.array([0, 1, 2, 0, 1, 1, 1, 0, 2, 2], np.int32)
WEIGHTS = balance.class_weights((50, 20, 5), 0.8)


def test_views_are_mixed_as_published():
    """Breaks when a share is that of the partner, or the patch is cut out of the wrong picture."""
    rows, mix = make_rows(), jax.jit(glmc.make_views(lambda key, images: images))
    pictures, partners = rows[:PAIRS], rows[PAIRS:]
    seen = []
    for seed in range(20):
        views = mix(jax.random.key(seed), rows)
        share = float(views.share)
        np.testing.assert_allclose(
            views.first, share * pictures + (1 - share) * partners, rtol=1e-4, atol=1e-6
        )
        second = np.asarray(views.second)
        replaced = second != pictures
        assert (second[replaced] == partners[replaced]).all()
        patch = replaced.any(axis=(0, 3))
        assert (replaced[..., 0] == patch[None]).all()  # one patch for the batch
        rows_of, cols_of = patch.any(axis=1).sum(), patch.any(axis=0).sum()
        assert patch.sum() == rows_of * cols_of  # a rectangle
        assert max(rows_of, cols_of) <= round(SIDE * np.sqrt(1 - share)) + 1
        seen.append((share, patch.mean()))
    assert np.corrcoef(np.array(seen).T)[0, 1] < -0.5


def test_every_view_of_every_picture_has_its_own_augmentation():
    """Breaks when two of the four see the same random numbers."""

    def note(key, images):
        return jnp.zeros_like(images) + jax.random.uniform(key, (), images.dtype)

    views = jax.jit(glmc.make_views(note))(jax.random.key(4), make_rows())
    low, high = np.unique(views.second)  # of the pictures and of their partners
    share = float(views.share)
    for one, other in ((low, high), (high, low)):
        assert abs(views.first - (share * one + (1 - share) * other)).min() > 1e-3


def by_hand(network, params, views, labels, progress, similarity):
    """The formula of the module, with the features from the network."""
    params = jax.tree.map(np.asarray, params)
    lam = float(views.share)
    total, z, p = 0.0, [], []
    for view in (views.first, views.second):
        features = np.asarray(network.embed(params, view), np.float64)

        def dense(layer, inputs):
            return inputs @ layer["kernel"] + layer["bias"]

        z.append(dense(params["heads"]["projection"], features))
        p.append(dense(params["heads"]["prediction"], z[-1]))
        for layer, factor, weights in (
            (params["heads"]["fc"], 1 - progress, np.ones(CLASSES)),
            (params["classifier"], progress, WEIGHTS),
        ):
            logits = dense(layer, features)
            log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            for i in range(PAIRS):
                a, b = labels[i], labels[PAIRS + i]
                mixed = (
                    lam * weights[a] * log_probs[i, a] + (1 - lam) * weights[b] * log_probs[i, b]
                )
                total -= factor * mixed / PAIRS
    for i, j in ((0, 1), (1, 0)):
        norms = np.linalg.norm(p[i], axis=1) * np.linalg.norm(z[j], axis=1)
        total -= similarity * np.mean((p[i] * z[j]).sum(axis=1) / norms)
    return total


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_loss_by_hand(network, params, progress):
    """Breaks when the heads change places, weights meet the wrong label, or a sign turns."""
    views = glmc.make_views(lambda key, images: images)(jax.random.key(3), make_rows())
    loss = glmc.make_loss(network, WEIGHTS, similarity=0.7)
    value, kept = jax.jit(loss)(params, (jnp.float32(progress), views), LABELS, None)
    expected = by_hand(network, params, views, LABELS, progress, 0.7)
    assert float(value) == pytest.approx(expected, rel=1e-4)
    assert jax.tree.structure(kept) == jax.tree.structure(params)


def test_the_heads_learn_one_after_the_other(network, params):
    """At t = 0 no cross-entropy reaches fc_cb, at the end none reaches fc; breaks the schedule."""
    views = glmc.make_views(lambda key, images: images)(jax.random.key(3), make_rows())
    loss = glmc.make_loss(network, WEIGHTS)
    slope = jax.jit(jax.grad(lambda p, t: loss(p, (t, views), LABELS, None)[0]))
    begin, end = slope(params, jnp.float32(0)), slope(params, jnp.float32(1))

    def largest(tree):
        return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))

    assert largest(begin["classifier"]) == 0 and largest(begin["heads"]["fc"]) > 1e-3
    assert largest(end["classifier"]) > 1e-3 and largest(end["heads"]["fc"]) == 0


def test_what_is_aimed_at_gets_no_gradient(network, params):
    """Breaks when the two views move towards each other from both sides, and collapse."""
    views = glmc.make_views(lambda key, images: images)(jax.random.key(3), make_rows())
    z = [
        np.asarray(network.embed(params, view))
        @ np.asarray(params["heads"]["projection"]["kernel"])
        + np.asarray(params["heads"]["projection"]["bias"])
        for view in (views.first, views.second)
    ]

    def alike(projection):
        total = jnp.float32(0)
        for view, aim in ((views.first, z[1]), (views.second, z[0])):
            features = network.embed(params, view)
            own = features @ projection["kernel"] + projection["bias"][None]
            head = params["heads"]["prediction"]
            made = own @ head["kernel"] + head["bias"][None]
            lengths = jnp.sqrt((made**2).sum(axis=1)) * np.linalg.norm(aim, axis=1)
            total -= ((made * aim).sum(axis=1) / lengths).mean()
        return total

    loss = glmc.make_loss(network, 0 * WEIGHTS)  # at the end, so that no cross-entropy is left
    got = jax.jit(jax.grad(lambda p: loss(p, (jnp.float32(1), views), LABELS, None)[0]))(params)
    expected = jax.jit(jax.grad(alike))(params["heads"]["projection"])
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(
            got["heads"]["projection"][name], expected[name], rtol=1e-3, atol=1e-6
        )
