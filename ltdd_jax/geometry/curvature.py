"""Curvature of a loss at snapshots: the largest eigenvalues of its Hessian, and along a path.

Hessian times vector is a derivative of the gradient and takes about two gradients (Pearlmutter,
"Fast exact multiplication by the Hessian", 1994). Eigenvalues come from the method of Lanczos
(1950), as used for networks by Ghorbani et al., ICML 2019. Flat regions are what GSAM seeks for
the experts (method section "Representation experts").
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np
import optax

from ltdd_jax.geometry import layers
from ltdd_jax.types import Array, Params

Loss = Callable[[Params], Array]  # parameters -> scalar


def hessian_product(loss: Loss, params: Params, vector: Params) -> Params:
    """∂²loss/∂θ² · vector at `params`; pure, for `jit`."""
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The upper end of a Hessian's spectrum.

    Attributes:
      values: float64 [R], falling.
      errors: float64 [R]; an eigenvalue lies within this distance of each value, up to rounding
        of the products.
    """

    values: np.ndarray
    errors: np.ndarray


def find_top_eigenvalues(
    key: Array, loss: Loss, params: Params, *, num_values: int = 1, num_steps: int = 30
) -> Spectrum:
    """The largest eigenvalues of the Hessian of `loss` at `params`.

    Every new direction is made orthogonal to all before it, in float64. A multiple eigenvalue is
    found once.

    Args:
      key: of the random first direction.
      loss: twice differentiable.
      params: D parameters.
      num_values: R.
      num_steps: products with the Hessian, at least R; D of them are exact. Memory is that many
        float64 copies of the parameters.

    Returns:
      R values; fewer where the Hessian has no more different ones.

    Raises:
      ValueError: fewer steps than values.
    """
    if num_steps < num_values:
        raise ValueError(f"num_steps={num_steps} must be at least num_values={num_values}")
    product = jax.jit(lambda vector: hessian_product(loss, params, vector))
    bits = np.asarray(jax.random.bits(key, (4,))).tolist()
    vector = np.random.default_rng(bits).normal(size=layers.flatten(params).size)
    basis = np.empty((0, vector.size))
    diagonal, sides = [], []
    for _ in range(min(num_steps, vector.size)):
        basis = np.vstack([basis, vector / np.linalg.norm(vector)])
        image = layers.flatten(product(layers.unflatten(basis[-1], params)))
        diagonal.append(basis[-1] @ image)
        vector = image - basis.T @ (basis @ image)
        sides.append(np.linalg.norm(vector))
        scale = max(np.abs(diagonal).max(), max(sides))
        if sides[-1] <= _rounding(params) * scale:  # the directions so far are closed
            break
    tridiagonal = np.diag(diagonal) + np.diag(sides[:-1], 1) + np.diag(sides[:-1], -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    errors = np.abs(sides[-1] * vectors[-1])
    return Spectrum(values[::-1][:num_values], errors[::-1][:num_values])


def curvature_along(loss: Loss, path: Iterable[Params]) -> np.ndarray:
    """Curvature of the loss in the direction in which a path goes on.

    dᵀ H d / ‖d‖² with d = θ_{i+1} - θ_i and H the Hessian at θ_i.

    Args:
      loss: twice differentiable.
      path: P snapshots; read once.

    Returns:
      float64 [P - 1]; NaN where the path stands still.
    """

    @jax.jit
    def measure(here, there):
        way = jax.tree.map(lambda a, b: b - a, here, there)
        bent = optax.tree.vdot(way, hessian_product(loss, here, way))
        return bent / optax.tree.norm(way, squared=True)

    found, here = [], None
    for there in path:
        if here is not None:
            found.append(float(measure(here, there)))
        here = there
    return np.array(found, np.float64)


def _rounding(params):
    return 10 * max(np.finfo(leaf.dtype).eps for leaf in jax.tree.leaves(params))
