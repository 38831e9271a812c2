"""Eigenvalues and curvature of quadratics whose Hessian is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import geometry

SIZE = 24


def make_loss(eigenvalues):
    """½ xᵀ A x for a symmetric A with these eigenvalues, and parameters of two layers."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
    matrix = jnp.asarray(rotation * np.asarray(eigenvalues) @ rotation.T, jnp.float32)

    def loss(params):
        x = jnp.concatenate([params["a"]["kernel"].ravel(), params["b"]["bias"]])
        return 0.5 * x @ matrix @ x + x.sum()

    point = {"a": {"kernel": jnp.ones((4, 5))}, "b": {"bias": jnp.ones(4)}}
    return loss, point, np.asarray(matrix, np.float64)


def test_product_is_that_of_the_matrix():
    loss, point, matrix = make_loss(np.arange(SIZE))
    vector = jax.tree.map(lambda x: x * 0.5, point)
    vector["b"]["bias"] = jnp.array([1.0, -2, 3, 4])
    found = geometry.hessian_product(loss, point, vector)
    flat = np.concatenate([np.full(20, 0.5), [1, -2, 3, 4]])
    expected = matrix @ flat
    np.testing.assert_allclose(found["a"]["kernel"], expected[:20].reshape(4, 5), atol=1e-4)
    np.testing.assert_allclose(found["b"]["bias"], expected[20:], atol=1e-4)


@pytest.mark.parametrize("num_steps", [SIZE, 15])
def test_largest_eigenvalues_of_a_known_hessian(num_steps):
    """Breaks when directions are not kept orthogonal; negative ones do not count as large."""
    eigenvalues = np.concatenate([[50, 30, 20], np.linspace(-25, 5, SIZE - 3)])
    loss, point, _ = make_loss(eigenvalues)
    found = geometry.find_top_eigenvalues(
        jax.random.key(0), loss, point, num_values=3, num_steps=num_steps
    )
    np.testing.assert_allclose(found.values, [50, 30, 20], rtol=1e-3)
    assert (found.errors < 0.5).all()


def test_errors_bound_what_few_steps_leave_open():
    eigenvalues = np.linspace(1, SIZE, SIZE)
    loss, point, _ = make_loss(eigenvalues)
    found = geometry.find_top_eigenvalues(jax.random.key(1), loss, point, num_steps=5)
    gap = np.abs(eigenvalues - found.values[0]).min()
    assert found.errors[0] > 1e-3 and gap <= found.errors[0]


def test_few_different_eigenvalues_end_the_search_early():
    """The Hessian has two different ones; more directions would be rounding."""
    loss, point, _ = make_loss([7.0] * 4 + [2.0] * (SIZE - 4))
    found = geometry.find_top_eigenvalues(
        jax.random.key(0), loss, point, num_values=3, num_steps=10
    )
    np.testing.assert_allclose(found.values, [7, 2], rtol=1e-4)


def test_more_values_than_steps_are_refused():
    loss, point, _ = make_loss(np.ones(SIZE))
    with pytest.raises(ValueError, match="num_steps=2 must be at least num_values=3"):
        geometry.find_top_eigenvalues(jax.random.key(0), loss, point, num_values=3, num_steps=2)


def test_curvature_along_a_path_is_taken_where_a_step_begins():
    """x³ + 5 y² has the curvatures 6 x and 10; breaks when it is taken at the end of a step."""

    def loss(params):
        return params["x"] ** 3 + 5 * params["y"] ** 2

    points = [(1.0, 0.0), (3.0, 0.0), (3.0, 2.0), (4.0, 3.0), (4.0, 3.0)]
    path = ({"x": jnp.array(x), "y": jnp.array(y)} for x, y in points)
    found = geometry.curvature_along(loss, path)
    np.testing.assert_allclose(found, [6, 10, (18 + 10) / 2, np.nan], rtol=1e-6)
