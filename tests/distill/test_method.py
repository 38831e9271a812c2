"""What the pipeline relies on, for every method alike.

A new method passes these tests before it is run: see `docs/add_a_method.md`.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import config as configs
from ltdd_jax import fields
from ltdd_jax.distill import Method
from ltdd_jax.distill import step as steps
from ltdd_jax.presets import PRESETS
from ltdd_jax.types import SyntheticSet, UserError
from tests.distill import tasks

BLOCK = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A method, its inputs and its two compiled programs, which all tests share."""

    method: Method
    start: SyntheticSet
    inputs: list[Any]  # of the first BLOCK iterations
    step: Any
    block: Any

    def init(self, seed=0):
        """A new state; the block gives its arrays away."""
        copies = jax.tree.map(lambda x: jnp.array(x, copy=True), self.start)
        return self.method.init(jax.random.key(seed), copies)

    def stack(self, count=BLOCK):
        return jax.tree.map(lambda *x: np.stack(x), *self.inputs[:count])


make_task = functools.cache(tasks.make_task)  # one network, whose compiled programs are shared


@functools.cache
def make_case(name: str) -> Case:
    method = tasks.make_method(name, make_task())
    step = functools.partial(method.step, **place_constants(method))
    return Case(
        method=method,
        start=method.start(),
        inputs=[method.read(i) for i in range(BLOCK)],
        step=jax.jit(trace_once(step)),
        block=jax.jit(trace_once(steps.repeat_step(step)), donate_argnums=0),
    )


def place_constants(method):
    """On the device, as the pipeline hands them to a step."""
    return jax.tree.map(jnp.asarray, dict(method.constants()))


def trace_once(function):
    """The function, which fails when it is traced again, that is compiled for a second time."""
    traces = []

    def traced(*args):
        traces.append(jax.tree.map(jnp.shape, args))
        assert len(traces) == 1, f"compiled again: {traces}"
        return function(*args)

    return traced


@pytest.fixture(params=list(configs.METHODS))
def case(request):
    return make_case(request.param)


def store(state):
    """To the host and back, as a checkpoint takes it: keys as their data."""

    def one(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(np.asarray(jax.random.key_data(x)))
        return jnp.asarray(np.array(x))

    return jax.tree.map(one, state)


def plain(tree):
    """Leaves as NumPy arrays, keys as their data."""
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in map(jnp.asarray, jax.tree.leaves(tree))
    ]


def assert_equal(a, b):
    chex.assert_trees_all_equal_structs(a, b)
    for x, y in zip(plain(a), plain(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_start_has_the_shape_the_pipeline_expects(case):
    """Breaks when rows, dtypes or classes of the set are not those announced by `labels`."""
    method, start = case.method, case.start
    rows = len(method.labels)
    assert method.labels.dtype == np.int32 and method.labels.ndim == 1
    assert start.images.shape == (rows, 8, 8, 1) and start.label_logits.shape == (rows, 3)
    assert {np.asarray(x).dtype for x in jax.tree.leaves(start)} == {np.dtype(np.float32)}
    assert np.shape(start.step_size) == () and float(start.step_size) > 0
    assert set(method.labels) <= {0, 1, 2} and (np.diff(method.labels) >= 0).all()
    assert_equal(method.start(), start)


def test_state_has_the_shapes_that_a_checkpoint_is_read_in(case):
    """Breaks when `init` computes with values, so that no template can be made without them."""
    abstract = jax.eval_shape(
        case.method.init,
        jax.random.key(0),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.float32), case.start),
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, case.init())
    step = functools.partial(case.method.step, **place_constants(case.method))
    after, _ = jax.eval_shape(step, abstract, case.inputs[0])
    chex.assert_trees_all_equal_shapes_and_dtypes(after, abstract)


def test_result_of_the_first_state_is_the_start(case):
    assert_equal(case.method.result(case.init()), jax.tree.map(jnp.asarray, case.start))


def test_step_depends_on_state_and_inputs_alone(case):
    """Breaks when a step draws from a hidden source; a resumed run would be another one."""
    first = case.step(case.init(), case.inputs[0])
    assert_equal(case.step(store(case.init()), case.inputs[0]), first)
    if case.method.num_iterations:
        moved = case.method.result(first[0])
        assert not np.array_equal(moved.images, case.start.images), "a step changes the images"


def test_inputs_depend_on_the_iteration_alone(case):
    """In any order, and beyond the last; breaks when `read` keeps a cursor."""
    again = [case.method.read(i) for i in reversed(range(BLOCK))]
    for found, expected in zip(reversed(again), case.inputs, strict=True):
        assert_equal(found, expected)
    beyond = case.method.read(case.method.num_iterations + 1)
    chex.assert_trees_all_equal_shapes_and_dtypes(beyond, case.inputs[0])


def test_a_block_equals_single_steps_and_compiles_once(case):
    """Padded with an iteration that is not active; programs may round differently.

    Breaks when a state cannot be given away (an array twice in it), or a shape or dtype changes
    from one step to the next, which compiles again.
    """
    single = case.init()
    for inputs in case.inputs[: BLOCK - 1]:
        single, metrics = case.step(single, inputs)
    active = np.arange(BLOCK) < BLOCK - 1
    state, found = case.block(case.init(), case.stack(), active)
    numbers = [
        [x for x in plain(tree) if np.issubdtype(x.dtype, np.floating)] for tree in (state, single)
    ]
    for x, y in zip(*numbers, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(found[name][BLOCK - 2], value, rtol=1e-3, atol=1e-5)
        assert np.isnan(found[name][BLOCK - 1])
    state, _ = case.block(state, case.stack(), active)  # a second trace would raise


def test_resumes_bit_equal(case):
    """Breaks when something that a later step needs is not part of the state."""
    everything, inputs = np.ones(BLOCK, bool), case.stack()
    whole, _ = case.block(case.init(), inputs, everything)
    state, _ = case.block(case.init(), inputs, np.arange(BLOCK) < 1)
    state, _ = case.block(store(state), inputs, np.arange(BLOCK) > 0)
    assert_equal(state, whole)
    assert_equal(case.method.result(state), case.method.result(whole))


def test_metrics_are_finite_numbers_and_include_those_with_limits(case):
    """Breaks when a limit names a metric that does not exist, so that nothing is watched."""
    state, metrics = case.block(case.init(), case.stack(), np.ones(BLOCK, bool))
    assert "loss" in metrics and set(case.method.limits) <= set(metrics)
    assert not case.method.limits or case.method.remedy
    assert {(x.shape, x.dtype) for x in metrics.values()} == {((BLOCK,), np.dtype(np.float32))}
    result = case.method.result(state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, result)))
    chex.assert_trees_all_equal_shapes_and_dtypes(result, case.start)


def test_plan_is_told_what_a_run_needs(case):
    method = case.method
    assert method.summary and "\n" not in method.summary
    assert method.bytes >= 0 and method.flops >= 0
    assert method.num_iterations == 0 or (method.bytes > 0 and method.flops > 0)
    assert list(method.experts) == sorted(set(method.experts), reverse=True)  # in training order


@pytest.mark.parametrize("name", list(configs.METHODS))
def test_impossible_settings_are_refused_with_one_sentence(name):
    """Every field of the method's section; breaks when a field has no rule or none is applied."""
    section = PRESETS[name].section
    configs.validate(tasks.make_config(name))
    impossible = {int: -1, float: -1.0, str: "nonsense"}  # of true and false both are possible
    for path, field in fields.flatten_fields().items():
        if not path.startswith(f"{section}.") or type(field.default) not in impossible:
            continue
        wrong = impossible[type(field.default)]
        config = tasks.make_config(name)
        config.update_from_flattened_dict({path: wrong})
        with pytest.raises(UserError) as caught:
            configs.validate(config)
        message = str(caught.value)
        assert message.startswith(f"--config.{path}={wrong}") and "\n" not in message


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("mtt", {"trajectory.representation.max_start_epoch": 100}, "experts.representation"),
        ("datm", {"trajectory.representation.min_start_epoch": 4}, "leaves no start epoch"),
        ("dam_ed", {"trajectory.classifier.matched": "all"}, "only the classifier moves"),
        ("dam_ed", {"trajectory.labels": "target"}, "as the preset tesla has them"),
        (
            "dam_ed",
            {"trajectory.partition": 2, "data.image_size": 33},
            r"trajectory\.partition=2 .*image_size=33 to a multiple of 2",
        ),
        ("tesla", {"trajectory.representation.loss_weight": 0.0}, "nothing is matched"),
        ("dm", {"distribution_matching.partition": 2}, "networks=queue only"),
        ("idm", {"data.image_size": 33}, "image_size=33 to a multiple of 2"),
        ("idm", {"distribution_matching.queue_size": 1}, "initial_networks=2 do not fit"),
        ("dream", {"data.image_size": 33}, "image_size=33 to a multiple of 2"),
    ],
)
def test_impossible_combinations_are_refused_with_one_sentence(name, changed, expected):
    config = tasks.make_config(name)
    config.update_from_flattened_dict(changed)
    with pytest.raises(UserError, match=expected) as caught:
        configs.validate(config)
    assert "\n" not in str(caught.value)
