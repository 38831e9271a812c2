"""The matching loss by hand and against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.distill import matching
from tests.distill import golden_matching
from tests.golden_files import relative_error


@pytest.mark.golden
@pytest.mark.parametrize("name", golden_matching.NAMES)
def test_golden_distance_and_loss_of_stored_end_points(name):
    """Breaks when the classifier leaks into the representation phase or D is not the start's."""
    problem = golden_matching.load(name)
    final = problem.tree(problem.values["final_params"])
    part = problem.phase.matched
    final, start, target = (
        matching.select_part(tree, part) for tree in (final, problem.start, problem.target)
    )
    distance = matching.squared_distance(start, target)
    assert relative_error(distance, problem.values["param_dist"]) < 1e-4
    loss = matching.matching_loss(final, start, target)
    assert relative_error(loss, problem.values["grand_loss"]) < 1e-4


def _tree(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "block_0": {"kernel": jax.random.normal(keys[0], (2, 3))},
        "classifier": {
            "kernel": jax.random.normal(keys[1], (3, 2)),
            "bias": jax.random.normal(keys[2], (2,)),
        },
    }


def test_parts_are_disjoint_and_complete():
    params = _tree(0)
    assert matching.select_part(params, "all") is params
    assert set(matching.select_part(params, "backbone")) == {"block_0"}
    assert set(matching.select_part(params, "classifier")) == {"classifier"}


def test_unknown_part_is_refused():
    with pytest.raises(ValueError, match="classifer"):
        matching.select_part(_tree(0), "classifer")


def test_squared_distance_sums_over_all_leaves():
    a, b = (
        {"x": jnp.array([1.0, 2.0]), "y": jnp.array([[3.0]])},
        {
            "x": jnp.array([0.0, 4.0]),
            "y": jnp.array([[1.0]]),
        },
    )
    np.testing.assert_allclose(matching.squared_distance(a, b), 1 + 4 + 4, rtol=1e-6)


def test_loss_is_one_at_the_start_zero_at_the_target_and_free_of_scale():
    start, target, final = _tree(0), _tree(1), _tree(2)
    np.testing.assert_allclose(matching.matching_loss(start, start, target), 1, rtol=1e-6)
    assert matching.matching_loss(target, start, target) == 0
    scaled = [jax.tree.map(lambda x: 1e-3 * x, tree) for tree in (final, start, target)]
    np.testing.assert_allclose(
        matching.matching_loss(*scaled), matching.matching_loss(final, start, target), rtol=1e-5
    )


def test_gradient_at_the_target_is_finite():
    """A root of the squared norm would give NaN where the student reaches the expert."""
    start, target = _tree(0), _tree(1)
    grads = jax.grad(matching.matching_loss)(target, start, target)
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(grads))
