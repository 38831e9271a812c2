"""The distance of statistics: closed forms, finite differences and the real set as its own copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.distill import statistics, statistics_loss
from ltdd_jax.distill.statistics import Moments
from ltdd_jax.distill.statistics_loss import Target

LABELS = np.array([0, 0, 0, 1, 1])
SHARES = jnp.array([0.6, 0.4])


def draw_maps(shape=(5, 4, 4, 2), seed=0):
    return np.random.default_rng(seed).normal(1, 2, shape).astype(np.float32)


@jax.jit
def measure(maps):
    return statistics.measure_layers({"norm": maps}, [])


def of_running(moments):
    return {name: Target(overall=value, classes=None) for name, value in moments.items()}


def regularise(maps, targets, *, class_weight=0.0, mixture=False):
    values = statistics_loss.measure_layers(
        measure(maps), targets, SHARES, class_weight=class_weight, mixture=mixture
    )
    return statistics_loss.join_layers(values, "norm", 10.0)


def test_equal_statistics_cost_nothing_and_pull_nowhere():
    """Breaks when the norm's derivative at 0 is not a number, or a constant is added below it."""
    # Whole numbers, of whose sums every program rounds nothing.
    maps = np.rint(draw_maps((4, 4, 4, 2)))
    evaluate = jax.jit(jax.value_and_grad(regularise))
    value, gradient = evaluate(jnp.asarray(maps), of_running(measure(maps)))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(maps))


def test_norms_not_squares_and_ten_for_the_first_layer():
    """Breaks when squares are summed, variances left out, or the first layer weighs like others."""

    def moments(*numbers):
        return Moments(mean=jnp.array(numbers[:2]), variance=jnp.array(numbers[2:]))

    found = {
        "a": moments(3.0, 4.0, 1.0, 1.0),
        "b": moments(0.0, 0.0, 1.0, 1.0),
        "a/patches": moments(0.0, 0.0, 7.0, 1.0),
    }
    targets = of_running(dict.fromkeys(found, moments(0.0, 0.0, 1.0, 1.0)))
    values = statistics_loss.measure_layers(found, targets, SHARES, class_weight=0.0, mixture=False)
    assert {name: float(value) for name, value in values.items()} == {
        "a": 5.0,
        "b": 0.0,
        "a/patches": 6.0,
    }
    assert float(statistics_loss.join_layers(values, "a", 10.0)) == 110.0
    assert float(statistics_loss.join_layers(values, "b", 10.0)) == 11.0


def test_gradient_of_one_layer_equals_finite_differences():
    """In double precision, with the classes' half and running averages of weight 1."""
    with jax.enable_x64(True):
        maps = draw_maps().astype(np.float64)
        rng = np.random.default_rng(1)
        classes = Moments(mean=rng.normal(size=(2, 2)), variance=rng.uniform(1, 2, (2, 2)))
        overall = Moments(mean=rng.normal(size=2), variance=rng.uniform(1, 2, 2))
        targets = {"norm": Target(overall=overall, classes=classes)}
        shares = np.array([0.6, 0.4])

        def plain(maps):
            rows = maps.reshape(-1, 2)
            m, v = rows.mean(axis=0), rows.var(axis=0)
            of_means, of_variances = shares @ classes.mean, shares @ classes.variance
            parts = [overall.mean - m, overall.variance - v, of_means - m, of_variances - v]
            return 10 * sum(0.5 * np.sqrt((part**2).sum()) for part in parts)

        def program(maps):
            values = statistics_loss.measure_layers(
                measure(maps), targets, shares, class_weight=0.5, mixture=False
            )
            return statistics_loss.join_layers(values, "norm", 10.0)

        value, gradient = jax.jit(jax.value_and_grad(program))(jnp.asarray(maps))
        np.testing.assert_allclose(value, plain(maps), rtol=1e-10)
        for place in [(0, 0, 0, 0), (2, 3, 1, 1), (4, 2, 2, 0)]:
            step = np.zeros_like(maps)
            step[place] = 1e-5
            difference = (plain(maps + step) - plain(maps - step)) / 2e-5
            np.testing.assert_allclose(gradient[place], difference, rtol=1e-6)


def test_running_averages_carry_values_and_the_gradient_of_the_batch():
    """v <- 0.8 v + 0.2 x; breaks when the gradient is shrunk by 0.2, or flows into old averages."""
    maps = jnp.asarray(draw_maps())
    before = {"norm": Moments(mean=jnp.array([1.0, 2.0]), variance=jnp.array([3.0, 4.0]))}
    batch = measure(maps)
    averages, straight = statistics_loss.update_averages(before, batch, 0.8)
    for name in ("mean", "variance"):
        old, new = getattr(before["norm"], name), getattr(batch["norm"], name)
        expected = 0.8 * np.asarray(old) + 0.2 * np.asarray(new)
        np.testing.assert_allclose(getattr(averages["norm"], name), expected, rtol=1e-6)
        np.testing.assert_allclose(getattr(straight["norm"], name), expected, rtol=1e-6)

    def along(maps, carry):
        averages, straight = statistics_loss.update_averages(carry, measure(maps), 0.8)
        both = jax.tree.map(lambda a, s: 100 * a + s, averages, straight)
        return both["norm"].mean @ jnp.array([1.0, -2.0]) + both["norm"].variance.sum()

    def alone(maps):
        found = measure(maps)["norm"]
        return found.mean @ jnp.array([1.0, -2.0]) + found.variance.sum()

    gradient, into_averages = jax.jit(jax.grad(along, argnums=(0, 1)))(maps, before)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(alone))(maps), rtol=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(into_averages))


@pytest.mark.parametrize("mixture", [False, True])
def test_the_real_set_has_no_distance_from_its_own_classes(mixture):
    """Means always; variances only where they are those of the mixture of pooled classes.

    Breaks when the classes of the batch are joined by other shares than the batch has.
    """
    maps = draw_maps()

    def one_by_one(images):
        return statistics.measure_images({"norm": jnp.asarray(images)}, [])

    classes = statistics.measure_classes(one_by_one, maps, LABELS, 2, pooled=True, block=5)["norm"]
    joined = statistics.join_classes(classes, SHARES, mixture=mixture)
    found = measure(maps)["norm"]
    assert float(statistics_loss.measure_distance(joined.mean, found.mean)) < 1e-5
    of_variance = float(statistics_loss.measure_distance(joined.variance, found.variance))
    assert of_variance < 1e-4 if mixture else of_variance > 1e-3
    target = {"norm": Target(overall=found, classes=classes)}
    total = regularise(maps, target, class_weight=0.5, mixture=mixture)
    np.testing.assert_allclose(total, 10 * 0.5 * of_variance, atol=1e-3, rtol=1e-4)
