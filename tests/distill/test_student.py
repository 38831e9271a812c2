"""Every gradient of the unroll against its definition, finite differences and the reference.

All derivative checks run in float64: in float32 cancellation hides mistakes of the size of
those between the estimators.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.data import augment, batches
from ltdd_jax.distill import matching, step, student
from tests.distill import golden_matching
from tests.golden_files import relative_error

FULL_GRADIENTS = ("exact", "autodiff")
ARGUMENTS = ("params", "images", "label_logits", "step_size")


@pytest.fixture(autouse=True)
def _double_precision(request):
    """float64, restored afterwards; the numbers of the reference are float32."""
    with jax.enable_x64("golden" not in request.node.name):
        yield


@dataclasses.dataclass(frozen=True)
class Problem:
    """An inner loss and what `unroll` needs besides; `make_draws` takes a seed."""

    inner_loss: Callable
    arguments: tuple[Any, jax.Array, jax.Array, jax.Array]  # in the order of ARGUMENTS
    frozen: Any
    batches: Any
    make_draws: Callable[[int], Any]

    @property
    def num_steps(self):
        return len(self.batches.indices)


def quadratic_problem(num_steps=5):
    """L = Σ_b w_b ½ (<θ + f, x_b · d> - Σ y_b)²: a known Hessian, mixed terms in all arguments."""
    rng = np.random.default_rng(0)

    def inner_loss(params, frozen, images, label_logits, weights, draws):
        rows = images.reshape(len(images), -1) * draws
        residual = rows @ (params["w"] + frozen["w"]) - label_logits.sum(axis=1)
        return 0.5 * (weights.astype(residual.dtype) * residual**2).sum()

    def make_draws(seed):
        factors = np.random.default_rng(seed).uniform(0.8, 1.2, (num_steps, 1, 1))
        return jnp.asarray(factors)

    return Problem(
        inner_loss=inner_loss,
        arguments=(
            {"w": jnp.asarray(rng.normal(size=4))},
            jnp.asarray(rng.normal(size=(5, 2, 2, 1))),
            jnp.asarray(rng.normal(size=(5, 3))),
            jnp.asarray(0.07),
        ),
        frozen={"w": jnp.asarray(rng.normal(size=4))},
        batches=batches.draw_chunks(jax.random.key(0), 5, 3, num_steps),
        make_draws=make_draws,
    )


def _jitter(key, images):
    """A cheap augmentation with one random number per image."""
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), images.dtype, 0.5)


def network_problem(moved, augment_fn, num_steps=3):
    """A small ConvNet with augmentation, chunks of 2 and 3 rows, the backbone frozen or not."""
    with jax.enable_x64(False):  # parameters are initialised in float32
        network = nets.build("convnet", image_shape=(4, 4, 2), num_classes=3, width=3, depth=1)
        params = network.init(jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), params)
    frozen = {}
    if moved == "classifier":
        frozen, params = (matching.select_part(params, p) for p in ("backbone", "classifier"))
    phase = step.Phase(
        name="phase",
        moved=moved,
        matched=moved,
        student_steps=num_steps,
        batch_size=3,
        loss_weight=1.0,
        class_weights=(0.6, 0.3, 0.1) if moved == "all" else None,
    )
    rng = np.random.default_rng(0)
    return Problem(
        inner_loss=step.make_inner_loss(network, phase, augment_fn),
        arguments=(
            params,
            jnp.asarray(rng.normal(size=(5, 4, 4, 2))),
            jnp.asarray(rng.normal(size=(5, 3))),
            jnp.asarray(0.4),
        ),
        frozen=frozen,
        batches=batches.draw_chunks(jax.random.key(0), 5, 3, num_steps),
        make_draws=lambda seed: jax.random.split(jax.random.key(seed), num_steps),
    )


PROBLEMS = {
    "quadratic": quadratic_problem,
    "network": functools.partial(network_problem, "all", augment.make_augment("color_crop_flip")),
    "frozen_backbone": functools.partial(network_problem, "classifier", _jitter),
}
SEED = 5  # of the draws; gives three different operations


def outer_loss(final):
    """A loss with a different, not constant cotangent in every entry."""
    return sum(jnp.sum(jnp.sin(leaf + i)) for i, leaf in enumerate(jax.tree.leaves(final)))


def unrolled_loss(problem, gradient, draws, *arguments):
    """The outer loss through `unroll`."""
    params, images, label_logits, step_size = arguments
    final = student.unroll(
        problem.inner_loss,
        params,
        problem.frozen,
        (images, label_logits),
        step_size,
        problem.batches,
        draws,
        gradient=gradient,
    )
    return outer_loss(final)


def defined_loss(problem, gradient, draws, *arguments):
    """The outer loss through a Python loop on rows without padding; its derivative defines
    `gradient`.

    To the two-pass estimator the parameters at which a step takes its gradient are constants.
    """
    params, images, label_logits, step_size = arguments
    seen = jax.lax.stop_gradient if gradient == "two_pass" else (lambda x: x)
    indices, weights = np.asarray(problem.batches.indices), np.asarray(problem.batches.weights)
    theta = params
    for i in range(problem.num_steps):
        present = np.flatnonzero(weights[i])
        rows = indices[i][present]
        grad = jax.grad(problem.inner_loss)(
            seen(theta),
            problem.frozen,
            images[rows],
            label_logits[rows],
            weights[i][present],
            draws[i],
        )
        theta = jax.tree.map(lambda t, g: t - step_size * g, theta, grad)
    return outer_loss(theta)


def with_gradients(loss, problem, gradient):
    """(draws, *arguments) -> (value, gradients by the four arguments), not compiled."""
    function = functools.partial(loss, problem, gradient)
    return jax.value_and_grad(function, argnums=(1, 2, 3, 4))


@functools.cache
def compiled(name, gradient, num_steps=None):
    """Problem `name` and its compiled value and gradients through `unroll`."""
    problem = PROBLEMS[name]() if num_steps is None else PROBLEMS[name](num_steps=num_steps)
    return problem, jax.jit(with_gradients(unrolled_loss, problem, gradient))


@functools.cache
def defined(name, gradient):
    """Value and gradients by the definition."""
    problem, _ = compiled(name, gradient)
    function = jax.jit(with_gradients(defined_loss, problem, gradient))
    return function(problem.make_draws(SEED), *problem.arguments)


def errors(actual, expected):
    """Relative L2 error per argument, all leaves of an argument together."""

    def one(actual, expected):
        actual, expected = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
            for tree in (actual, expected)
        )
        return np.linalg.norm(actual - expected) / np.linalg.norm(expected)

    return dict(zip(ARGUMENTS, map(one, actual, expected), strict=True))


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        # The frozen backbone and finite differences of the whole network tell the same sooner.
        pytest.param(name, gradient, marks=[pytest.mark.slow] * (name == "network"))
        for name in PROBLEMS
        for gradient in student.GRADIENTS
    ],
)
def test_gradients_equal_their_definition(name, gradient):
    """Breaks on a wrong sign, factor, time index, or weight of padding in any argument."""
    problem, run = compiled(name, gradient)
    value, grads = run(problem.make_draws(SEED), *problem.arguments)
    full = "two_pass" if gradient == "two_pass" else "autodiff"
    expected_value, expected = defined(name, full)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    assert max(errors(grads, expected).values()) < 1e-9, errors(grads, expected)


@pytest.mark.parametrize("gradient", FULL_GRADIENTS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_full_gradients_equal_finite_differences(name, gradient):
    """One random direction per argument; breaks when a dependence of θ_T is left out."""
    problem, run = compiled(name, gradient)
    _, grads = run(problem.make_draws(SEED), *problem.arguments)
    for i in range(len(ARGUMENTS)):
        rng = np.random.default_rng(i)
        direction = jax.tree.map(lambda x, rng=rng: rng.normal(size=x.shape), problem.arguments[i])
        ends = []
        for sign in (1e-5, -1e-5):
            arguments = list(problem.arguments)
            arguments[i] = jax.tree.map(
                lambda x, d, s=sign: np.asarray(x) + s * d, arguments[i], direction
            )
            ends.append(float(run(problem.make_draws(SEED), *arguments)[0]))
        products = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), grads[i], direction)
        slope = sum(jax.tree.leaves(products))
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "gradient"),
    [("quadratic", gradient) for gradient in student.GRADIENTS]
    + [pytest.param("network", name, marks=pytest.mark.slow) for name in student.GRADIENTS],
)
def test_vmap_of_grad_and_grad_of_vmap_equal_a_loop(name, gradient):
    """With different augmentation in every member; breaks on a wrong rule for batching."""
    problem, run = compiled(name, gradient)
    members = [
        jax.tree.map(lambda x, f=factor: f * np.asarray(x), problem.arguments)
        for factor in (1.0, 0.9, -0.5)
    ]
    seeds = range(SEED, SEED + 3)
    looped = [run(problem.make_draws(seed), *m) for seed, m in zip(seeds, members, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def all_draws():
        return jax.tree.map(lambda *x: jnp.stack(x), *[problem.make_draws(s) for s in seeds])

    def total(draws, *arguments):
        loss = functools.partial(unrolled_loss, problem, gradient)
        return jax.vmap(loss)(draws, *arguments).sum()

    vmapped = jax.jit(jax.vmap(with_gradients(unrolled_loss, problem, gradient)))
    with jax.debug_key_reuse(False):  # which takes stacked keys for used
        _, inside = vmapped(all_draws(), *stacked)
        outside = jax.jit(jax.grad(total, argnums=(1, 2, 3, 4)))(all_draws(), *stacked)
    for i, (_, expected) in enumerate(looped):
        for grads in (inside, outside):
            member = jax.tree.map(lambda x, i=i: x[i], grads)
            assert max(errors(member, expected).values()) < 1e-9


@pytest.mark.parametrize("name", PROBLEMS)
def test_two_pass_differs_from_exact_over_several_steps(name):
    """Otherwise the test of the definition could not tell the two apart."""
    results = []
    for gradient in ("two_pass", "exact"):
        problem, run = compiled(name, gradient)
        results.append(run(problem.make_draws(SEED), *problem.arguments)[1])
    assert min(errors(*results).values()) > 1e-2, errors(*results)


def test_two_pass_is_exact_for_one_step():
    """In the data and the step size; it takes the end of the student as a shift of its start."""
    results = []
    for gradient in ("two_pass", "exact"):
        problem, run = compiled("quadratic", gradient, num_steps=1)
        results.append(run(problem.make_draws(SEED), *problem.arguments)[1])
    found = errors(*results)
    assert max(found[argument] for argument in ARGUMENTS[1:]) < 1e-9, found


@pytest.mark.parametrize("gradient", student.GRADIENTS)
def test_closed_form_of_a_parabola(gradient):
    """L = ½ (θ - m)², so θ_T = m + q^T (θ_0 - m) with q = 1 - α; by hand, not by JAX."""
    start, mean, alpha, steps = 2.0, 0.5, 0.3, 4
    q = 1 - alpha

    def inner_loss(theta, frozen, images, label_logits, weights, draws):
        return 0.5 * (theta - images.mean() - label_logits.mean()) ** 2

    def final(theta, images, label_logits, step_size):
        chunks = batches.draw_chunks(jax.random.key(0), 1, 1, steps)
        draws = jnp.zeros(steps)
        data = (images, label_logits)
        return student.unroll(
            inner_loss, theta, {}, data, step_size, chunks, draws, gradient=gradient
        )

    data = (jnp.full((1, 1, 1, 1), mean), jnp.zeros((1, 1)))
    arguments = (jnp.asarray(start), *data, jnp.asarray(alpha))
    value, grads = jax.value_and_grad(final, argnums=(0, 1, 2, 3))(*arguments)
    np.testing.assert_allclose(value, mean + q**steps * (start - mean), rtol=1e-12)
    if gradient == "two_pass":
        # Σ_i (θ_i - m) = (θ_0 - m) (1 - q^T) / α
        by_start, by_mean = 1.0, alpha * steps
        by_alpha = -(start - mean) * (1 - q**steps) / alpha
    else:
        by_start, by_mean = q**steps, 1 - q**steps
        by_alpha = -steps * q ** (steps - 1) * (start - mean)
    expected = (by_start, by_mean, by_mean, by_alpha)
    for grad, number in zip(grads, expected, strict=True):
        np.testing.assert_allclose(grad.sum(), number, rtol=1e-12)


@pytest.mark.parametrize("gradient", student.GRADIENTS)
def test_frozen_parameters_are_constants(gradient):
    problem, _ = compiled("quadratic", gradient)

    def loss(frozen):
        moved = dataclasses.replace(problem, frozen=frozen)
        return unrolled_loss(moved, gradient, problem.make_draws(SEED), *problem.arguments)

    value, grad = jax.value_and_grad(loss)(problem.frozen)
    assert value != loss(jax.tree.map(jnp.zeros_like, problem.frozen))
    np.testing.assert_array_equal(grad["w"], 0)


@pytest.mark.parametrize("gradient", student.GRADIENTS)
def test_float32_and_integer_draws_keep_their_dtypes(gradient):
    """Breaks when a residual is promoted or a cotangent of an integer is asked for."""
    with jax.enable_x64(False):
        problem = quadratic_problem()

        def inner_loss(params, frozen, images, label_logits, weights, draws):
            images = jnp.roll(images, draws, axis=1)
            scale = jnp.ones((1, 1), images.dtype)
            return problem.inner_loss(params, frozen, images, label_logits, weights, scale)

        shifted = dataclasses.replace(problem, inner_loss=inner_loss)
        draws = jnp.arange(problem.num_steps, dtype=jnp.int32)
        run = with_gradients(unrolled_loss, shifted, gradient)
        value, grads = run(draws, *problem.arguments)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, grads))} == {np.dtype(np.float32)}
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, problem.arguments)


def test_unknown_gradient_is_refused():
    problem = quadratic_problem()
    with pytest.raises(ValueError, match="'twopass'"):
        unrolled_loss(problem, "twopass", problem.make_draws(SEED), *problem.arguments)


@pytest.mark.parametrize("gradient", ["exact", "two_pass"])
def test_forward_derivatives_are_refused_where_they_would_be_wrong(gradient):
    """Only `autodiff` has them; the others must not return the derivative of something else."""
    problem = quadratic_problem()
    loss = functools.partial(unrolled_loss, problem, gradient, problem.make_draws(SEED))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(loss, problem.arguments, problem.arguments)


@pytest.mark.golden
@pytest.mark.parametrize("name", golden_matching.WITH_EVERY_STEP)
def test_golden_parameters_of_every_step(name):
    """Breaks when a step uses other rows, another learning rate or moves a frozen part."""
    problem = golden_matching.load(name)
    inner_loss = step.make_inner_loss(problem.network, problem.phase, problem.augment)
    path = problem.values["all_params"]
    frozen, params = {}, problem.start
    if problem.phase.moved == "classifier":
        frozen, params = (matching.select_part(params, p) for p in ("backbone", "classifier"))
    data = (problem.synthetic.images, problem.synthetic.label_logits)

    @jax.jit
    def one_step(params, batch, draws):
        one = jax.tree.map(lambda x: x[None], (batch, draws))
        return student.unroll(inner_loss, params, frozen, data, problem.synthetic.step_size, *one)

    for i in range(problem.phase.student_steps):
        inputs = jax.tree.map(lambda x, i=i: x[i], (problem.batches, problem.draws))
        params = one_step(params, *inputs)
        change = problem.flat({**frozen, **params}) - path[0]
        assert relative_error(change, path[i + 1] - path[0]) < 1e-3
    gradient_sum = -change / problem.values["syn_lr"]
    assert relative_error(gradient_sum, problem.values["gradient_sum"]) < 1e-3
