"""The loss on lines and grids of functions known by formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import geometry


def wells(params):
    """(x² - 1)² + y: minima along x at -1 and 1."""
    return (params["x"] ** 2 - 1) ** 2 + params["y"]


def make_point(x, y=0.0):
    return {"x": jnp.array(x), "y": jnp.array(y)}


def test_line_between_two_wells():
    """Breaks when the two ends change places."""
    positions = np.linspace(-0.25, 1.25, 7)
    found = geometry.slice_line(wells, make_point(-1.0), make_point(1.0, 2.0), positions)
    x = 2 * positions - 1
    np.testing.assert_allclose(found, (x**2 - 1) ** 2 + 2 * positions, atol=1e-6)
    assert geometry.loss_barrier(positions, found) == pytest.approx(1, abs=1e-6)


def test_no_barrier_in_one_basin():
    """A parabola lies below the line between its ends; its arms outside do not count."""
    positions = np.linspace(-1, 2, 13)
    assert geometry.loss_barrier(positions, positions**2) == 0


def test_barrier_needs_both_ends():
    with pytest.raises(ValueError, match="0 and 1 among them"):
        geometry.loss_barrier([0, 0.5], [1, 2])


def test_grid_has_rows_of_the_second_coordinate():
    found = geometry.slice_plane(wells, lambda c: make_point(c[0], c[1]), [-1.0, 0, 1], [0.0, 5])
    np.testing.assert_allclose(found, [[0, 1, 0], [5, 6, 5]])


def test_plane_of_three_experts_meets_them():
    """`Plane.lift` and `slice_plane` together find the losses of the snapshots themselves."""
    experts = [make_point(*p) for p in ((-1.0, 0.5), (2.0, 1.0), (0.5, 4.0))]
    plane = geometry.fit_plane(experts.__getitem__, 3)
    for expert, (x, y) in zip(experts, plane.coordinates, strict=True):
        found = geometry.slice_plane(wells, plane.lift, [x], [y])
        np.testing.assert_allclose(found, [[wells(expert)]], rtol=1e-5)
