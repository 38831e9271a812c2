"""The three outer optimisers, against the reference's traces and by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.distill import state
from ltdd_jax.types import SyntheticSet
from tests.golden_files import load_golden, relative_error

# Field -> (trace of the file, prefix of the arguments).
TRACES = {
    "images": ("sgd_img_traj", "image"),
    "label_logits": ("sgd_lab_traj", "label"),
    "step_size": ("sgd_lr_traj", "step_size"),
}


def _run(tx, synthetic, gradients):
    """Synthetic sets after each of the updates."""
    current, path = state.init_state(jax.random.key(0), synthetic, tx), []
    for grads in gradients:
        updates, opt_state = tx.update(grads, current.opt_state, current.synthetic)
        moved = jax.tree.map(jnp.add, current.synthetic, updates)
        current = current.replace(synthetic=moved, opt_state=opt_state)
        path.append(moved)
    return path


@pytest.mark.golden
def test_golden_traces_of_all_variables():
    """Breaks when two variables exchange their rates, or momentum is damped, Nesterov or none.

    The first two updates of a trace tell its rate and momentum; all later ones are predicted.
    """
    golden = load_golden("eval_protocol")
    gradients, rates = golden["sgd_grads"], {}
    for trace, name in TRACES.values():
        path = golden[trace].astype(np.float64)
        first = gradients[0].astype(np.float64)
        rate = -(path[0] @ first) / (first @ first)
        rest = -(path[1] - path[0]) / rate - gradients[1]
        rates[f"{name}_lr"] = rate
        rates[f"{name}_momentum"] = (rest @ first) / (first @ first)
    tx = state.make_outer_optimizer(**rates)
    zeros = jnp.zeros(gradients.shape[1])
    path = _run(
        tx,
        SyntheticSet(images=zeros, label_logits=zeros, step_size=zeros),
        [SyntheticSet(images=g, label_logits=g, step_size=g) for g in gradients],
    )
    assert len(path) > 2
    for field, (trace, _) in TRACES.items():
        found = np.stack([getattr(synthetic, field) for synthetic in path])
        assert relative_error(found, golden[trace]) < 1e-5


def _set():
    return SyntheticSet(
        images=jnp.ones((2, 3, 3, 1)), label_logits=jnp.zeros((2, 4)), step_size=jnp.float32(0.01)
    )


RATES = dict(
    image_lr=10.0,
    image_momentum=0.5,
    label_lr=2.0,
    label_momentum=0.0,
    step_size_lr=0.1,
    step_size_momentum=0.25,
)


def test_values_are_neither_clipped_nor_decayed():
    """Large gradients, pixels and a negative step size pass as they are."""
    path = _run(
        state.make_outer_optimizer(**RATES),
        _set(),
        [jax.tree.map(lambda x: jnp.full_like(x, 1e3), _set())] * 2,
    )
    expected = (
        SyntheticSet(images=1 - 1e4, label_logits=-2e3, step_size=0.01 - 1e2),
        SyntheticSet(images=1 - 2.5e4, label_logits=-4e3, step_size=0.01 - 2.25e2),
    )
    for found, numbers in zip(path, expected, strict=True):
        full = jax.tree.map(lambda x, n: jnp.full_like(x, n), found, numbers)
        chex.assert_trees_all_close(found, full, rtol=1e-6)


@pytest.mark.parametrize("fall_steps", [0, 4])
def test_adam_and_falling_rates_equal_the_published_rules(fall_steps):
    """Breaks when a momentum is not the decay of the first moment, or the fall ends elsewhere."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 3)).astype(np.float32)
    tx = state.make_outer_optimizer(**RATES, optimizer="adam", fall_steps=fall_steps)
    zeros = jnp.zeros(3)
    path = _run(
        tx,
        SyntheticSet(images=zeros, label_logits=zeros, step_size=zeros),
        [SyntheticSet(images=g, label_logits=g, step_size=g) for g in gradients],
    )
    for field, name in (("images", "image"), ("label_logits", "label"), ("step_size",) * 2):
        place = first = second = np.zeros(3)
        decay = RATES[f"{name}_momentum"]
        for step, gradient in enumerate(gradients.astype(np.float64)):
            first = decay * first + (1 - decay) * gradient
            second = 0.99 * second + 0.01 * gradient**2
            share = min(step / fall_steps, 1) if fall_steps else 0
            rate = RATES[f"{name}_lr"] * (0.98 * (1 + np.cos(np.pi * share)) / 2 + 0.02)
            unbiased = np.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-8
            place = place - rate * first / (1 - decay ** (step + 1)) / unbiased
            found = np.asarray(getattr(path[step], field))
            np.testing.assert_allclose(found, place, rtol=2e-4, err_msg=f"{field} {step}")


def test_initial_state():
    """Also under `jit`: the state is a tree of arrays with the dtypes that are checkpointed."""
    tx = state.make_outer_optimizer(**RATES)
    made = jax.jit(lambda key, s: state.init_state(key, s, tx))(jax.random.key(3), _set())
    assert made.step.dtype == jnp.int32 and made.step.shape == () and made.step == 0
    assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(made))
    assert jnp.issubdtype(made.base_key.dtype, jax.dtypes.prng_key)
    chex.assert_trees_all_equal(made.synthetic, _set())
    assert all(not leaf.any() for leaf in jax.tree.leaves(made.opt_state))
    shapes = [leaf.shape for leaf in jax.tree.leaves(made.opt_state)]
    assert (2, 3, 3, 1) in shapes and () in shapes
