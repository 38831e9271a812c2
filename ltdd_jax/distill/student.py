"""The student: SGD on synthetic data, and three ways to differentiate its end point.

The forward recursion is θ_{i+1} = θ_i - α ∇L_i(θ_i; x_i, y_i). With λ_T the cotangent of θ_T and
H_i the Hessian of L_i, the exact adjoint is

    λ_i = λ_{i+1} - α H_i λ_{i+1}
    ∂/∂(x_i, y_i) = -α ∂/∂(x_i, y_i) <λ_{i+1}, ∇L_i>        ∂/∂α = -Σ_i <λ_{i+1}, ∇L_i>

Every term is a derivative of the number <λ_{i+1}, ∇L_i>, a Jacobian-vector product of L_i. One
reverse pass over that product gives them all at the price of one step, and only the θ_i have to
be stored. `two_pass` (TESLA, Cui et al., ICML 2023) keeps λ_{i+1} = λ_T for every step: it is
blind to how a step changes the later ones. `autodiff` lets JAX differentiate the scan.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ltdd_jax.types import Batch, Params

GRADIENTS = ("exact", "two_pass", "autodiff")

# (params, frozen, images [B,...], label_logits [B,K], weights [B], draws of one step) -> scalar
InnerLoss = Callable[[Params, Params, jax.Array, jax.Array, jax.Array, Any], jax.Array]


def unroll(
    inner_loss: InnerLoss,
    params: Params,
    frozen: Params,
    data: tuple[jax.Array, jax.Array],
    step_size: jax.Array,
    batches: Batch,
    draws: Any,
    *,
    gradient: str = "exact",
) -> Params:
    """Runs the student for T steps of SGD.

    Args:
      inner_loss: loss of one step; the only thing that knows the network and the augmentation.
      params: trainable parameters θ_0.
      frozen: parameters the student uses and does not move; constants to differentiation.
      data: (images [S, ...], label_logits [S, K]).
      step_size: scalar α.
      batches: rows of each step, leading axis T.
      draws: random numbers of each step, leading axis T; constants to differentiation.
      gradient: one of `GRADIENTS`.

    Returns:
      θ_T, differentiable in params, data and step_size as `gradient` says.

    Raises:
      ValueError: unknown gradient.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {GRADIENTS}, not {gradient!r}")
    frozen = jax.lax.stop_gradient(frozen)
    inner_loss, draws = _scan_bits(inner_loss, draws)
    if gradient == "autodiff":
        final, _ = _run(inner_loss, params, frozen, data, step_size, batches, draws, keep=False)
        return final
    return _with_adjoint(inner_loss, gradient == "exact")(
        params, frozen, data, step_size, batches, draws
    )


def _run(inner_loss, params, frozen, data, step_size, batches, draws, *, keep):
    """The forward recursion; returns θ_T and, if `keep`, θ_0..θ_{T-1} stacked."""

    def body(theta, inputs):
        batch, step_draws = inputs
        images, labels = _gather(data, batch.indices)
        grad = jax.grad(inner_loss)(theta, frozen, images, labels, batch.weights, step_draws)
        moved = jax.tree.map(lambda t, g: t - step_size * g, theta, grad)
        return moved, theta if keep else None

    return jax.lax.scan(body, params, (batches, draws))


def _with_adjoint(inner_loss, propagate):
    """The unroll with a hand-written reverse pass; `propagate` False is the two-pass estimator."""

    @jax.custom_vjp
    def end_point(params, frozen, data, step_size, batches, draws):
        return _run(inner_loss, params, frozen, data, step_size, batches, draws, keep=False)[0]

    def forward(params, frozen, data, step_size, batches, draws):
        final, thetas = _run(inner_loss, params, frozen, data, step_size, batches, draws, keep=True)
        return final, (thetas, frozen, data, step_size, batches, draws)

    def backward(residuals, cotangent):
        thetas, frozen, data, step_size, batches, draws = residuals

        def body(carry, inputs):
            adjoint, data_grad, slope = carry
            theta, batch, step_draws = inputs
            rows = _gather(data, batch.indices)

            def directional(theta, rows):
                """<adjoint, ∇L_i>."""

                def loss(theta):
                    return inner_loss(theta, frozen, *rows, batch.weights, step_draws)

                return jax.jvp(loss, (theta,), (adjoint,))[1]

            if propagate:
                value, (curvature, mixed) = jax.value_and_grad(directional, argnums=(0, 1))(
                    theta, rows
                )
                adjoint = jax.tree.map(lambda a, c: a - step_size * c, adjoint, curvature)
            else:
                value, mixed = jax.value_and_grad(directional, argnums=1)(theta, rows)
            data_grad = jax.tree.map(
                lambda total, part: total.at[batch.indices].add(-step_size * part),
                data_grad,
                mixed,
            )
            return (adjoint, data_grad, slope - value), None

        start = (cotangent, jax.tree.map(jnp.zeros_like, data), jnp.zeros_like(step_size))
        (adjoint, data_grad, slope), _ = jax.lax.scan(
            body, start, (thetas, batches, draws), reverse=True
        )
        return adjoint, None, data_grad, slope, None, None

    end_point.defvjp(forward, backward)
    return end_point


def _gather(data, indices):
    return jax.tree.map(lambda x: x[indices], data)


def _scan_bits(inner_loss, draws):
    """The same loss for the bits of the keys in `draws`, and those bits.

    The reverse pass uses the keys of the forward pass again, on purpose, and `vmap` moves their
    axis; JAX's check for reused keys takes both for mistakes.
    """
    leaves, structure = jax.tree.flatten(draws)
    is_key = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    impls = [jax.random.key_impl(x) if key else None for x, key in zip(leaves, is_key, strict=True)]
    bits = [jax.random.key_data(x) if key else x for x, key in zip(leaves, is_key, strict=True)]

    def loss(params, frozen, images, label_logits, weights, bits):
        leaves = [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(bits, impls, strict=True)
        ]
        draws = jax.tree.unflatten(structure, leaves)
        return inner_loss(params, frozen, images, label_logits, weights, draws)

    return loss, bits
