"""GSAM, the optimiser of the flat-trajectory experts."""

import jax
import jax.numpy as jnp
import optax

from ltdd_jax import training

_EPSILON = 1e-12  # of the published implementation, guards the three divisions


def perturb(params, gradient, *, rho: float, adaptive: bool):
    """The ascent step e towards a sharper point (SAM / ASAM).

    e = ρ / (‖|w|·g‖ + ε) · w²·g if `adaptive`, else ρ / (‖g‖ + ε) · g; one norm over all leaves.
    """
    if not adaptive:
        factor = rho / (optax.tree.norm(gradient) + _EPSILON)
        return jax.tree.map(lambda g: factor * g, gradient)
    scaled = jax.tree.map(lambda w, g: jnp.abs(w) * g, params, gradient)
    factor = rho / (optax.tree.norm(scaled) + _EPSILON)
    return jax.tree.map(lambda w, g: factor * jnp.square(w) * g, params, gradient)


def decompose(gradient, perturbed_gradient, *, alpha: float):
    """d = g_p - α·g_⊥, with g_⊥ the part of g orthogonal to the perturbed gradient g_p."""
    norm, perturbed_norm = optax.tree.norm(gradient), optax.tree.norm(perturbed_gradient)
    inner = optax.tree.vdot(gradient, perturbed_gradient)
    cosine = inner / (perturbed_norm * norm + _EPSILON)
    along = cosine * norm / (perturbed_norm + _EPSILON)
    return jax.tree.map(lambda g, gp: gp - alpha * (g - along * gp), gradient, perturbed_gradient)


def make_gsam_gradient(*, rho: float, alpha: float, adaptive: bool):
    """Builds the descent direction of GSAM (Zhuang et al., ICLR 2022) with constant ρ.

    Both gradients are taken on the same batch; weight decay and momentum are applied afterwards
    by the caller to the unperturbed parameters.

    Args:
      rho: radius of the perturbation, >= 0.
      alpha: weight of the orthogonal part, >= 0.
      adaptive: scale the perturbation by the size of the weights (ASAM).

    Returns:
      `gradient(loss, params, has_aux=False) -> (loss, direction)`; what the loss returns beside its
      value is that of the unperturbed parameters. With rho 0 the second gradient is the first, so
      that it is not taken.
    """
    if rho == 0:
        return training.plain_gradient

    def gradient(loss, params, has_aux=False):
        value, grad = jax.value_and_grad(loss, has_aux=has_aux)(params)
        ascent = perturb(params, grad, rho=rho, adaptive=adaptive)
        perturbed = jax.tree.map(jnp.add, params, ascent)
        second = jax.grad(loss, has_aux=has_aux)(perturbed)
        return value, decompose(grad, second[0] if has_aux else second, alpha=alpha)

    return gradient
