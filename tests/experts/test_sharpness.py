"""GSAM: the reference's intermediates, and the properties that define it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import losses, nets
from ltdd_jax.experts import sharpness
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout


@pytest.mark.golden
def test_golden_intermediates_of_one_step():
    """Breaks when the perturbation lacks a factor |w|, or the wrong gradient is decomposed."""
    golden = load_golden("gsam_step")
    num_classes = int(golden["y"].max()) + 1
    images = torch_layout.to_nhwc(golden["x"])
    side, batch = images.shape[1], len(images) // len(golden["losses"])
    layout = dict(num_classes=num_classes, side=side)
    width, depth = torch_layout.convnet_shapes(golden["params_before"].size, **layout)
    network = nets.build(
        "convnet", image_shape=images.shape[1:], num_classes=num_classes, width=width, depth=depth
    )
    params = torch_layout.convnet_from_flat(
        golden["params_before"], width=width, depth=depth, **layout
    )
    settings = dict(rho=float(golden["rho"]), adaptive=True)

    def loss(params):
        logits = network.apply(params, images[:batch])
        return losses.cross_entropy(logits, golden["y"][:batch]).mean()

    @jax.jit
    def run(params):
        value, grad = jax.value_and_grad(loss)(params)
        ascent = sharpness.perturb(params, grad, **settings)
        perturbed = jax.tree.map(jnp.add, params, ascent)
        perturbed_grad = jax.grad(loss)(perturbed)
        direction = sharpness.decompose(grad, perturbed_grad, alpha=float(golden["alpha"]))
        gradient = sharpness.make_gsam_gradient(alpha=float(golden["alpha"]), **settings)
        return value, grad, ascent, perturbed, perturbed_grad, direction, gradient(loss, params)

    value, *parts, (whole_value, whole) = run(params)
    assert relative_error(value, golden["losses"][0]) < 1e-5
    np.testing.assert_allclose(whole_value, value, rtol=1e-6)
    names = ("g", "e_w", "perturbed", "g_perturbed", "g_final")
    for part, name in zip(parts, names, strict=True):
        flat = torch_layout.convnet_to_flat(part, side=side)
        assert relative_error(flat, golden[f"step0_{name}"]) < 1e-4, name
    flat = torch_layout.convnet_to_flat(whole, side=side)
    assert relative_error(flat, golden["step0_g_final"]) < 1e-4


def _trees(seed=0):
    """Two trees with leaves of different sizes, so that norms per leaf would differ."""
    rng = np.random.default_rng(seed)

    def one():
        return {
            "a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
            "b": jnp.asarray(rng.normal(size=5), jnp.float32),
        }

    return one(), one()


def _flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


@pytest.mark.parametrize("adaptive", [True, False])
def test_perturbation_by_hand(adaptive):
    params, grad = _trees()
    w, g = _flat(params), _flat(grad)
    found = _flat(sharpness.perturb(params, grad, rho=0.3, adaptive=adaptive))
    if adaptive:
        expected = 0.3 * w**2 * g / np.linalg.norm(np.abs(w) * g)
        # The length of e / |w|, ASAM's measure, is ρ.
        np.testing.assert_allclose(np.linalg.norm(found / np.abs(w)), 0.3, rtol=1e-5)
    else:
        expected = 0.3 * g / np.linalg.norm(g)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_direction_removes_a_share_of_the_orthogonal_part():
    """d = g_p - α g_⊥ with g_⊥ ⟂ g_p; breaks when the two gradients are exchanged."""
    grad, perturbed = _trees()
    g, gp = _flat(grad), _flat(perturbed)
    orthogonal = g - (g @ gp) / (gp @ gp) * gp
    for alpha in (0.0, 0.3, 1.0):
        found = _flat(sharpness.decompose(grad, perturbed, alpha=alpha))
        np.testing.assert_allclose(found, gp - alpha * orthogonal, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose((found - gp) @ gp, 0, atol=1e-5)


def test_no_radius_gives_the_plain_gradient():
    params, _ = _trees()

    def loss(params):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(params))

    gradient = sharpness.make_gsam_gradient(rho=0.0, alpha=0.7, adaptive=True)
    value, direction = gradient(loss, params)
    np.testing.assert_allclose(value, loss(params), rtol=1e-6)
    np.testing.assert_allclose(_flat(direction), np.cos(_flat(params)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_zero_gradient_stays_zero(adaptive):
    """Dead networks and perfect fits have one; breaks when a division gives NaN."""
    gradient = sharpness.make_gsam_gradient(rho=0.1, alpha=0.3, adaptive=adaptive)
    params, _ = _trees()
    _, direction = gradient(lambda p: 0.0 * p["a"].sum(), params)
    np.testing.assert_array_equal(_flat(direction), 0)
