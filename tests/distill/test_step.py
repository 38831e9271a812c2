"""The outer iteration: matching gradients of the reference, and what surrounds them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import losses, nets, training
from ltdd_jax.distill import matching, state, step, student
from ltdd_jax.types import SyntheticSet
from tests.distill import golden_matching, iterations
from tests.golden_files import relative_error
from tests.reference import torch_layout


@pytest.mark.golden
@pytest.mark.parametrize("gradient", student.GRADIENTS)
@pytest.mark.parametrize("name", golden_matching.NAMES)
def test_golden_loss_and_gradients(name, gradient):
    """Breaks when an estimator is not the one its name says, or a phase weighs, moves or matches
    something else.

    Images are also compared one by one: a mistake in one chunk hides in the norm over all.
    """
    problem = golden_matching.load(name)
    values = problem.values

    @jax.jit
    def run(synthetic):
        def loss(synthetic):
            return step.phase_loss(
                problem.network,
                problem.phase,
                problem.augment,
                synthetic,
                problem.pair,
                problem.batches,
                problem.draws,
                gradient=gradient,
            )

        return jax.value_and_grad(loss)(synthetic)

    loss, grads = run(problem.synthetic)
    prefix = "" if gradient == "two_pass" else "exact_"
    expected_loss = values["grand_loss" if gradient == "two_pass" else "exact_loss"]
    assert relative_error(loss, expected_loss) < 1e-4
    images = torch_layout.to_nhwc(values[f"{prefix}grad_images"])
    for actual, expected in (
        (grads.images, images),
        (grads.label_logits, values[f"{prefix}grad_labels"]),
    ):
        assert relative_error(actual, expected) < 1e-3
        assert _cosine(actual, expected) > 0.99999
    for actual, expected in zip(grads.images, images, strict=True):
        assert relative_error(actual, expected) < 1e-2
    assert relative_error(grads.step_size, values[f"{prefix}grad_lr"]) < 1e-3


@pytest.mark.golden
@pytest.mark.parametrize("name", golden_matching.NAMES)
def test_golden_end_point(name):
    """Breaks when the student of a phase does not end where the reference's does."""
    problem = golden_matching.load(name)
    frozen, params = {}, problem.start
    if problem.phase.moved == "classifier":
        frozen, params = (matching.select_part(params, p) for p in ("backbone", "classifier"))
    final = jax.jit(student.unroll, static_argnums=0)(
        step.make_inner_loss(problem.network, problem.phase, problem.augment),
        params,
        frozen,
        (problem.synthetic.images, problem.synthetic.label_logits),
        problem.synthetic.step_size,
        problem.batches,
        problem.draws,
    )
    start, expected = problem.values["start_params"], problem.values["final_params"]
    assert relative_error(problem.flat(frozen | final) - start, expected - start) < 1e-3


def _cosine(a, b):
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def _plain(tree):
    """Leaves as NumPy arrays, keys as their data."""
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


def _assert_equal(a, b):
    for x, y in zip(_plain(a), _plain(b), strict=True):
        np.testing.assert_array_equal(x, y)


def _matching_losses(synthetic, pairs, num_steps):
    """Both phases with full batches and no augmentation, written out."""
    network = iterations.make_network()
    weights = jnp.array([0.6, 0.3, 0.1])

    def representation(params):
        logits = network.apply(params, synthetic.images)
        rows = losses.weighted_soft_cross_entropy(logits, synthetic.label_logits, weights)
        return rows.mean()

    def classifier(head):
        logits = network.apply(pairs[1].start | head, synthetic.images)
        return losses.soft_cross_entropy(logits, synthetic.label_logits).mean()

    def distance(a, b, names):
        a, b = ({name: tree[name] for name in names} for tree in (a, b))
        return sum(
            jnp.sum((x - y) ** 2) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
        )

    found = []
    starts = (pairs[0].start, {"classifier": pairs[1].start["classifier"]})
    names = (["block_0"], ["classifier"])
    for loss, start, pair, part in zip(
        (representation, classifier), starts, pairs, names, strict=True
    ):
        theta = start
        for _ in range(num_steps):
            grad = jax.grad(loss)(theta)
            theta = jax.tree.map(lambda t, g: t - synthetic.step_size * g, theta, grad)
        found.append(distance(theta, pair.target, part) / distance(start, pair.target, part))
    return found


def test_two_iterations_equal_the_method_written_out():
    """λ-weighted sum of both phases on the same set, then one momentum step on each variable.

    Breaks when a λ is lost, the second phase sees an updated set, a part is mixed up, or a
    momentum acts on the wrong variable.
    """
    made, init = iterations.make_step(iterations.make_phases(), augment=lambda key, images: images)
    run, current = jax.jit(made), init()

    @jax.jit
    def objective(synthetic, pairs):
        def total(synthetic):
            parts = _matching_losses(synthetic, pairs, 2)
            return 0.5 * parts[0] + 2.0 * parts[1], parts

        return jax.value_and_grad(total, has_aux=True)(synthetic)

    expected = jax.tree.map(np.asarray, current.synthetic)
    velocity = jax.tree.map(np.zeros_like, expected)
    momenta = SyntheticSet(images=0.5, label_logits=0.9, step_size=0.5)
    rates = SyntheticSet(images=0.5, label_logits=0.3, step_size=1e-3)
    for seed in range(2):
        pairs = iterations.make_pairs(seed)
        (total, parts), grads = objective(expected, pairs)
        current, metrics = run(current, pairs)
        for name, value in zip(
            ("loss", "representation_loss", "classifier_loss"), (total, *parts), strict=True
        ):
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4)
        for name, grad in (("image", grads.images), ("label", grads.label_logits)):
            norm = np.linalg.norm(grad)
            np.testing.assert_allclose(metrics[f"{name}_grad_norm"], norm, rtol=1e-3)
        velocity = jax.tree.map(lambda m, v, g: m * v + np.asarray(g), momenta, velocity, grads)
        moved = jax.tree.map(lambda p, r, v: p - r * v, expected, rates, velocity)
        for name in ("images", "label_logits", "step_size"):
            change = getattr(moved, name) - getattr(expected, name)
            actual = np.asarray(getattr(current.synthetic, name)) - getattr(expected, name)
            assert relative_error(actual, change) < 1e-3, name
        expected = jax.tree.map(np.float32, moved)
    assert int(current.step) == 2
    np.testing.assert_allclose(metrics["image_max"], np.abs(current.synthetic.images).max())
    np.testing.assert_allclose(metrics["step_size"], current.synthetic.step_size)
    assert {(v.shape, v.dtype) for v in metrics.values()} == {((), np.dtype(np.float32))}


def test_iteration_depends_on_state_alone():
    """Same state, same result; other base key or step, other rows and augmentation.

    Breaks when a resumed run would not repeat the one that was interrupted.
    """
    made, init = iterations.make_step(iterations.make_phases(batch_size=4))
    run, pairs = jax.jit(made), iterations.make_pairs()
    first, _ = run(init(), pairs)
    _assert_equal(first, run(init(), pairs)[0])
    for other in (init(seed=1), init().replace(step=jnp.int32(1))):
        moved, _ = run(other, pairs)
        assert not np.array_equal(first.synthetic.images, moved.synthetic.images)


def test_phases_draw_different_rows():
    """Breaks when both phases share the key of the iteration."""
    drawn = []

    def record(key, images):
        jax.debug.callback(
            lambda data: drawn.append(tuple(data.ravel().tolist())), jax.random.key_data(key)
        )
        return images

    tx = state.make_outer_optimizer(**iterations.RATES)
    made = step.make_distill_step(
        iterations.make_network(), iterations.make_phases(), tx, record, gradient="two_pass"
    )
    jax.jit(made)(
        state.init_state(jax.random.key(0), iterations.make_set(), tx), iterations.make_pairs()
    )
    jax.effects_barrier()
    assert len(set(drawn)) == 4  # 2 phases of 2 steps


def test_second_call_compiles_nothing():
    made, init = iterations.make_step(iterations.make_phases())
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(made, n=1))
    current = init()
    for seed in range(3):
        current, _ = run(current, iterations.make_pairs(seed))


def test_threshold_skips_the_whole_update():
    """Set and momentum stay bit-equal when one phase is above; the step still counts.

    Breaks when the weighted sum or one phase alone is compared, or the momentum moves on.
    """
    phases, pairs = iterations.make_phases(loss_weights=(1e-3, 1e-3)), iterations.make_pairs()
    made, init = iterations.make_step(phases)
    plain, metrics = jax.jit(made)(init(), pairs)
    lower, upper = sorted(float(metrics[f"{phase.name}_loss"]) for phase in phases)
    for threshold, expected in (
        (upper + 1e-3, plain),
        (lower + 0.9 * (upper - lower), init().replace(step=jnp.int32(1))),
    ):
        made, init = iterations.make_step(phases, skip_threshold=threshold)
        done, found = jax.jit(made)(init(), pairs)
        chex.assert_trees_all_close(found["loss"], metrics["loss"], rtol=1e-6)
        if expected is plain:
            chex.assert_trees_all_close(done.synthetic, plain.synthetic, rtol=1e-6)
            assert not np.array_equal(done.synthetic.images, init().synthetic.images)
        else:
            _assert_equal(done, expected)
        assert int(done.step) == 1


def test_a_pair_for_every_phase_is_required():
    made, init = iterations.make_step(iterations.make_phases())
    with pytest.raises(ValueError, match="zip"):
        made(init(), iterations.make_pairs()[:1])


def _stack(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def test_block_equals_single_iterations_and_ignores_inactive_ones():
    """Three single steps equal a block of three, and a block of five with two inactive.

    Breaks when an inactive iteration counts, moves momentum, or draws a key.
    """
    made, init = iterations.make_step(iterations.make_phases(batch_size=4))
    pairs = [iterations.make_pairs(seed) for seed in range(5)]
    single, singles = init(), []
    run = jax.jit(made)
    for pair in pairs[:3]:
        single, metrics = run(single, pair)
        singles.append(metrics)
    chex.clear_trace_counter()
    block = jax.jit(chex.assert_max_traces(step.repeat_step(made), n=1))
    active = jnp.arange(5) < 3
    padded, metrics = block(init(), _stack(pairs), active)
    chex.assert_trees_all_close(padded.synthetic, single.synthetic, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(padded.opt_state, single.opt_state, rtol=1e-5, atol=1e-6)
    assert int(padded.step) == 3
    for i, expected in enumerate(singles):
        found = jax.tree.map(lambda x, i=i: x[i], metrics)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(np.isnan(x[3:]).all() for x in jax.tree.leaves(metrics))
    # None active: bit-equal. All active and cut elsewhere: the same numbers.
    idle, _ = block(padded, _stack(pairs), jnp.zeros(5, bool))
    _assert_equal(idle, padded)
    current = init()
    for i in range(3):
        current, _ = block(current, _stack(pairs), jnp.arange(5) == i)
    _assert_equal(current, padded)


@pytest.mark.parametrize("lanes", [None, 1])
def test_gradients_of_several_pairs_are_averaged(lanes):
    """From full batches without augmentation; one update is linear in the gradient.

    Breaks when gradients are summed, or the pairs of a phase are mixed with those of another.
    """
    identity = {"augment": lambda key, images: images}
    made, init = iterations.make_step(iterations.make_phases(), **identity)
    run, every = jax.jit(made), [iterations.make_pairs(seed) for seed in range(3)]
    singles = [run(init(), pairs) for pairs in every]
    made, init = iterations.make_step(
        iterations.make_phases(),
        num_pairs=3,
        map_pairs=functools.partial(training.vectorize, lanes=lanes),
        **identity,
    )
    done, metrics = jax.jit(made)(init(), _stack(every))
    start = init().synthetic
    for name in ("images", "label_logits", "step_size"):
        mean = np.mean([np.asarray(getattr(s.synthetic, name)) for s, _ in singles], axis=0)
        change = np.asarray(getattr(done.synthetic, name)) - getattr(start, name)
        assert relative_error(change, mean - getattr(start, name)) < 1e-3, name
    for name in ("loss", "representation_loss", "classifier_loss"):
        np.testing.assert_allclose(metrics[name], np.mean([m[name] for _, m in singles]), rtol=1e-5)


def test_pairs_of_one_iteration_draw_different_rows_and_augmentation():
    """Two copies of one pair; breaks when all pairs share the key of the iteration."""
    single, init = iterations.make_step(iterations.make_phases(batch_size=4))
    made, _ = iterations.make_step(iterations.make_phases(batch_size=4), num_pairs=2)
    one, _ = jax.jit(single)(init(), iterations.make_pairs())
    done, _ = jax.jit(made)(init(), _stack([iterations.make_pairs()] * 2))
    assert np.abs(done.synthetic.images - one.synthetic.images).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("partition", "most"), [(1, 4), (2, 20)])
def test_temporaries_grow_by_copies_of_the_set_alone(partition, most):
    """Fixed minibatch, eight times the images; breaks when every student step keeps something for
    all images of the set, or computes with all of them. Two to three copies are needed, and of
    pictures that images hold four more.
    """
    size = dict(image_shape=(8, 8, 3), num_classes=iterations.NUM_CLASSES)
    network = nets.build("convnet", width=8, depth=1, **size)
    tx = state.make_outer_optimizer(**iterations.RATES)
    phases = iterations.make_phases(num_steps=6, batch_size=4)
    made = step.make_distill_step(network, phases, tx, iterations.jitter, partition=partition)
    params = jax.eval_shape(network.init, jax.random.key(0))
    pairs = tuple(
        step.ExpertPair(start=params, target=matching.select_part(params, phase.matched))
        for phase in phases
    )

    def count_bytes(num_images):
        images = jax.ShapeDtypeStruct((num_images, *size["image_shape"]), jnp.float32)
        synthetic = SyntheticSet(
            images=images,
            label_logits=jax.ShapeDtypeStruct((num_images, iterations.NUM_CLASSES), jnp.float32),
            step_size=jax.ShapeDtypeStruct((), jnp.float32),
        )
        start = jax.eval_shape(
            functools.partial(state.init_state, tx=tx), jax.random.key(0), synthetic
        )
        compiled = jax.jit(made, donate_argnums=0).lower(start, pairs).compile()
        return compiled.memory_analysis().temp_size_in_bytes, images.size * 4

    (few, few_images), (many, many_images) = count_bytes(100), count_bytes(800)
    assert many - few < most * (many_images - few_images), (few, many)
