"""Members of the family against each other, against code written out, and their experts.

Derivatives are compared in float64, from full batches and without augmentation; rows, draws and
estimators have their own tests (test_student, test_step).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import config as configs
from ltdd_jax import nets
from ltdd_jax.distill import student, trajectory
from ltdd_jax.types import UserError
from tests.distill import tasks

EQUAL_WEIGHTS = {"trajectory__class_weight_offset": 1e12}  # (N_k + f) / (N + f) is then 1
ONE_ESTIMATOR = {"trajectory__gradient": "exact", "trajectory__skip_threshold": 0.0}
# Every update is the gradient, which a test can then read off.
PLAIN_DESCENT = {
    "trajectory__batch_size": 100,
    "trajectory__image_lr": 1.0,
    "trajectory__image_momentum": 0.0,
    "trajectory__step_size_lr": 1e-3,
    "trajectory__step_size_momentum": 0.0,
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@functools.cache
def make_task(**options):
    """4 x 4 pixels, full float32 path; parameters are cast where a test wants float64."""
    with jax.enable_x64(False):
        return tasks.make_task(side=4, width=3, augment=lambda key, images: images, **options)


def make(name, *, num_steps=3, **fields):
    """The method with `num_steps` student steps in both phases."""
    counts = {
        f"trajectory__{phase}__student_steps": num_steps
        for phase in ("representation", "classifier")
    }
    with jax.enable_x64(False):
        return tasks.make_method(name, make_task(), **{**PLAIN_DESCENT, **counts, **fields})


def widen(tree):
    """Floats of the tree as float64."""

    def one(x):
        x = np.asarray(x)
        return jnp.asarray(x.astype(np.float64) if x.dtype == np.float32 else x)

    return jax.tree.map(one, tree)


def read(method, iteration):
    with jax.enable_x64(False):
        inputs = method.read(iteration)
    return widen(inputs)


def start_of(method):
    with jax.enable_x64(False):
        start = method.start()
    return widen(start)


def run(method, synthetic=None, iterations=1):
    """(state, last metrics) after some iterations in float64."""
    state = method.init(jax.random.key(1), start_of(method) if synthetic is None else synthetic)
    step = jax.jit(method.step)
    for i in range(iterations):
        state, metrics = step(state, read(method, i))
    return state, metrics


def gradients(method, synthetic=None):
    """(loss, image gradient, step size gradient) of the first iteration."""
    before = start_of(method) if synthetic is None else synthetic
    state, metrics = run(method, before)
    after = state.synthetic
    return metrics["loss"], before.images - after.images, (before.step_size - after.step_size) * 1e3


def assert_close(actual, expected, rtol=1e-7):
    """Relative L2 error; the weights 1/S of the rows are float32."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert error < rtol, error


def assert_sets_close(a, b, rtol=1e-9):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert_close(x, y, rtol)


def student_written_out(method, pair, num_steps, targets):
    """(images, step size) -> matching loss of all parameters, as a Python loop.

    `targets` [S, K] are probabilities. A ConvNet of one block by hand would prove its layers,
    which have their own tests; the network is the only code shared.
    """
    apply = make_task().network.apply

    def square(a, b):
        leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return sum(jnp.sum(jnp.square(x - y)) for x, y in leaves)

    def loss(images, step_size):
        theta = pair.start
        for _ in range(num_steps):

            def cross_entropy(theta):
                logits = apply(theta, images)
                total = jnp.log(jnp.exp(logits).sum(axis=1))
                return jnp.mean(total - (targets * logits).sum(axis=1))

            gradient = jax.grad(cross_entropy)(theta)
            theta = jax.tree.map(lambda t, g: t - step_size * g, theta, gradient)
        return square(theta, pair.target) / square(pair.start, pair.target)

    return loss


def test_mtt_equals_autodiff_through_a_written_out_student(double):
    """Breaks when labels, loss, matched part or gradient are not those of MTT."""
    method = make("mtt")
    (pair,) = read(method, 0)
    synthetic = start_of(method)
    targets = jnp.eye(3)[jnp.asarray(method.labels)]
    written = student_written_out(method, pair, 3, targets)
    value, (images, step_size) = jax.jit(jax.value_and_grad(written, argnums=(0, 1)))(
        synthetic.images, synthetic.step_size
    )
    loss, by_images, by_step_size = gradients(method)
    assert_close(loss, value)
    assert_close(by_images, images)
    assert_close(by_step_size, step_size)


def test_mtt_equals_finite_differences(double):
    """Of the loss it reports; breaks when the gradient is that of something else."""
    method, size = make("mtt"), 1e-6
    synthetic = start_of(method)
    _, images, step_size = gradients(method)
    rng = np.random.default_rng(0)
    direction, rate = rng.normal(size=images.shape), 0.7
    step, pair = jax.jit(method.step), read(method, 0)

    def loss_at(shift):
        moved = synthetic.replace(
            images=synthetic.images + shift * direction,
            step_size=synthetic.step_size + shift * rate,
        )
        return float(step(method.init(jax.random.key(1), moved), pair)[1]["loss"])

    slope = (loss_at(size) - loss_at(-size)) / (2 * size)
    expected = float((images * direction).sum() + step_size * rate)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_tesla_is_mtt_for_one_step_only(double):
    """Breaks when one of the two has the other's gradient."""
    found = {}
    for num_steps in (1, 3):
        pair = [gradients(make(name, num_steps=num_steps)) for name in ("mtt", "tesla")]
        found[num_steps] = [
            float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) for a, b in zip(*pair, strict=True)
        ]
    assert max(found[1]) < 1e-9
    assert found[3][0] < 1e-9 and min(found[3][1:]) > 1e-3, found


def test_datm_with_fixed_hard_labels_is_mtt(double):
    """Breaks when either has another loss, phase or order of experts."""
    mtt = make("mtt", trajectory__image_momentum=0.5)
    datm = make("datm", trajectory__image_momentum=0.5, trajectory__label_lr=0.0, **ONE_ESTIMATOR)
    synthetic = start_of(mtt)
    hard = synthetic.replace(label_logits=50.0 * jnp.eye(3)[jnp.asarray(mtt.labels)])
    (one, _), (other, _) = (run(m, s, iterations=2) for m, s in ((mtt, synthetic), (datm, hard)))
    assert_close(other.synthetic.images - synthetic.images, one.synthetic.images - synthetic.images)
    assert_close(other.synthetic.step_size, one.synthetic.step_size, 1e-12)
    np.testing.assert_array_equal(other.synthetic.label_logits, hard.label_logits)


def test_dam_without_weights_is_datm_without_threshold(double):
    """Breaks when they differ in more than the class weights; with weights they must."""
    dam, weighted = make("dam", **EQUAL_WEIGHTS, **ONE_ESTIMATOR), make("dam", **ONE_ESTIMATOR)
    datm = make("datm", **ONE_ESTIMATOR)
    synthetic = start_of(datm)
    results = [run(m, synthetic, iterations=2)[0].synthetic for m in (dam, datm, weighted)]
    assert_sets_close(*results[:2])
    assert not np.allclose(results[2].images, results[1].images, rtol=1e-6)


def test_ed_is_dam_ed_without_weights(double):
    """Breaks when they differ in more than the class weights; with weights they must."""
    ed, equal, weighted = (
        make("ed", **ONE_ESTIMATOR),
        make("dam_ed", **EQUAL_WEIGHTS, **ONE_ESTIMATOR),
        make("dam_ed", **ONE_ESTIMATOR),
    )
    results = [run(m, start_of(ed), iterations=2)[0].synthetic for m in (ed, equal, weighted)]
    assert_sets_close(*results[:2])
    assert not np.allclose(results[2].images, results[0].images, rtol=1e-6)


def test_weights_of_mean_one_lengthen_the_steps_by_the_number_of_classes(double):
    """Breaks when the weights are scaled by another number than K, which undoes their sum of 1."""
    longer = make("dam", **ONE_ESTIMATOR, trajectory__class_weight_scale="mean_one")
    synthetic = start_of(longer)
    loss, images, step_size = gradients(longer, synthetic)
    num_classes = len(tasks.CLASS_COUNTS)
    steps_as_long = dataclasses.replace(synthetic, step_size=num_classes * synthetic.step_size)
    other = gradients(make("dam", **ONE_ESTIMATOR), steps_as_long)
    assert_close(loss, other[0], 1e-6)  # the weights themselves are float32
    assert_close(images, other[1], 1e-6)
    assert_close(step_size, num_classes * other[2], 1e-6)


@pytest.mark.parametrize(
    ("gradient", "num_shards"),
    [*((gradient, 1) for gradient in student.GRADIENTS), ("exact", 2), ("two_pass", 2)],
)
def test_the_student_of_a_phase_takes_steps_of_its_own_length(double, gradient, num_shards):
    """Breaks when a phase ignores its factor, takes that of the other, or the learned step size
    is moved as if there were none."""
    options = {"trajectory__gradient": gradient, "trajectory__num_shards": num_shards}
    options["trajectory__representation__loss_weight"] = 0.0
    longer = make("dam_ed", **options, trajectory__classifier__step_size_factor=3.0)
    synthetic = start_of(longer)
    loss, images, step_size = gradients(longer, synthetic)
    steps_as_long = dataclasses.replace(synthetic, step_size=3 * synthetic.step_size)
    other = gradients(make("dam_ed", **options), steps_as_long)
    assert_close(loss, other[0])
    assert_close(images, other[1])
    assert_close(step_size, 3 * other[2])


def test_a_longer_step_of_one_phase_leaves_the_other(double):
    """Breaks when the factor of a phase is that of both."""
    one, both = (
        run(make("dam_ed", **ONE_ESTIMATOR, trajectory__classifier__step_size_factor=factor))[1]
        for factor in (1.0, 3.0)
    )
    assert_close(both["representation_loss"], one["representation_loss"])
    assert abs(both["classifier_loss"] / one["classifier_loss"] - 1) > 1e-3


def test_a_phase_of_weight_zero_is_left_out(double, monkeypatch):
    """Equal to both phases with λ₂ = 0 in the sum; breaks when leaving one out changes the draws
    or the experts of the other.
    """
    options = {**ONE_ESTIMATOR, "trajectory__batch_size": 4}
    alone = make("dam_ed", trajectory__classifier__loss_weight=0.0, **options)
    synthetic = start_of(alone)
    state, metrics = run(alone, synthetic, iterations=2)
    assert "classifier_loss" not in metrics and len(alone.read(0)) == 1
    original = trajectory.make_phases

    def make_both(settings, counts):
        first, second = original(settings, counts)
        return [first, second.__class__(**{**vars(second), "loss_weight": 0.0})]

    monkeypatch.setattr(trajectory, "make_phases", make_both)
    both, metrics = run(make("dam_ed", **options), synthetic, iterations=2)
    assert "classifier_loss" in metrics
    assert_sets_close(state.synthetic, both.synthetic)


def test_mean_of_constant_images_decays_geometrically(double):
    """E_k = d^k E_0 + (1 - d^k) X; breaks on d and 1 - d exchanged, or a mean of other steps."""
    decay, count = 0.9, 3
    method = make("ftd", trajectory__image_ema=decay, trajectory__image_lr=0.0, num_steps=1)
    synthetic = start_of(method)
    state = method.init(jax.random.key(1), synthetic)
    first = 1.0 + synthetic.images
    state, step = state.replace(mean_images=first), jax.jit(method.step)
    for i in range(count):
        state, _ = step(state, read(method, i))
    expected = decay**count * first + (1 - decay**count) * synthetic.images
    assert_close(state.mean_images, expected, 1e-12)


def test_ftd_keeps_the_mean_images_with_the_newest_step_size(double):
    """E_0 = X_0, the step precedes the mean, labels and step size are not averaged."""
    method = make("ftd", trajectory__image_ema=0.75, num_steps=1)
    before = start_of(method)
    state, _ = run(method, before)
    mean = 0.75 * before.images + 0.25 * state.synthetic.images
    result = method.result(state)
    assert_close(result.images, mean, 1e-12)
    assert result.step_size == state.synthetic.step_size != before.step_size
    assert make("mtt", num_steps=1).init(jax.random.key(0), before).mean_images is None


def test_datm_skips_what_is_above_its_threshold(double):
    """Images, labels, step size and all momenta stay; breaks when momentum decays or moves on."""
    method = make("datm", num_steps=1, trajectory__image_momentum=0.5)
    moved, metrics = run(method)
    vetoed = make(
        "datm",
        num_steps=1,
        trajectory__image_momentum=0.5,
        trajectory__skip_threshold=0.9 * float(metrics["loss"]),
    )
    # The momenta of `moved` are not zero, so a decay would be seen.
    after, _ = jax.jit(vetoed.step)(moved, read(vetoed, 0))
    for kept in ("synthetic", "opt_state"):
        for x, y in zip(
            jax.tree.leaves(getattr(after, kept)),
            jax.tree.leaves(getattr(moved, kept)),
            strict=True,
        ):
            np.testing.assert_array_equal(x, y)
    assert any(np.any(x) for x in jax.tree.leaves(moved.opt_state))
    assert int(after.step) == 2


def test_labels_of_the_target_snapshot_equal_the_code_written_out(double):
    """TESLA's option; breaks when the labels come from the start, are learned, or carry a
    gradient to the images.
    """
    method = make("mtt", num_steps=2, trajectory__labels="target")
    (pair,) = read(method, 0)
    synthetic = start_of(method)
    logits = make_task().network.apply(pair.target, synthetic.images)
    targets = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
    written = student_written_out(method, pair, 2, targets)
    value, expected = jax.jit(jax.value_and_grad(written))(synthetic.images, synthetic.step_size)
    loss, images, _ = gradients(method)
    assert_close(loss, value)
    assert_close(images, expected)
    state, _ = run(method)
    np.testing.assert_array_equal(state.synthetic.label_logits, synthetic.label_logits)


BOTH = ("representation", "classifier")
# Preset -> kinds of experts it needs, kinds whose last snapshots give images or labels.
EXPERTS = {
    "mtt": (BOTH[:1], ()),
    "tesla": (BOTH[:1], ()),
    "ftd": (BOTH[:1], ()),
    "datm": (BOTH[:1], BOTH[:1]),
    "dam": (BOTH[:1], BOTH[:1]),
    "ed": (BOTH, BOTH[1:]),
    "dam_ed": (BOTH, BOTH[1:]),
    "random": ((), ()),
    "k_center": (BOTH[:1], BOTH[:1]),
    "herding": (BOTH[:1], BOTH[:1]),
    "graph_cut": (BOTH[:1], BOTH[:1]),
    "k_medoids": (BOTH[:1], BOTH[:1]),
}


def test_other_methods_need_no_experts():
    """Breaks when a method's experts are not said above, or are trained for nothing."""
    task = tasks.make_task(side=8, width=3)
    others = configs.METHODS - EXPERTS.keys()
    assert {name for name in others if tasks.make_method(name, task).experts} == set()


@pytest.mark.parametrize("name", list(EXPERTS))
def test_experts_that_a_preset_needs_and_reads(name):
    """Breaks when experts are trained for nothing, or one is read that is not trained."""
    log = []
    method = tasks.make_method(name, tasks.make_task(side=4, width=3, log=log))
    needed, at_start = EXPERTS[name]
    assert method.experts == needed
    method.start()
    assert {kind for kind, _, _ in log} == set(at_start) and {epoch for *_, epoch in log} <= {-1}
    log.clear()
    for i in range(method.num_iterations):
        method.read(i)
    assert {kind for kind, _, _ in log} <= set(needed)
    for target, start in zip(log[::2], log[1::2], strict=True):
        kind, expert, epoch = start
        assert target == (kind, expert, epoch + 2)
        assert epoch in (range(4) if kind == "representation" else [0])


def test_soft_labels_of_a_selection_need_classifier_experts():
    log = []
    task = tasks.make_task(side=4, width=3, log=log)
    method = tasks.make_method("random", task, selection__labels="soft")
    method.start()
    assert method.experts == BOTH and {kind for kind, *_ in log} == {"classifier"}


def test_first_labels_are_the_mean_of_the_experts_that_are_right():
    """From the kind of experts that the preset names; where none is right zero, or DATM's class."""
    task = tasks.make_task(side=4, width=3)
    for name, kind in (("datm", "representation"), ("dam_ed", "classifier")):
        method = tasks.make_method(name, task, trajectory__initial_images="correct")
        start = method.start()
        logits = [
            np.asarray(task.network.apply(task.snapshot(kind, expert, -1), start.images))
            for expert in range(2)
        ]
        for row, label in enumerate(method.labels):
            right = [x[row] for x in logits if x[row].argmax() == label]
            unknown = (30.0 if name == "datm" else 0.0) * np.eye(3)[label]
            expected = np.mean(right, axis=0) if right else unknown
            np.testing.assert_allclose(start.label_logits[row], expected, atol=1e-5)


def test_networks_with_statistics_are_refused():
    """Breaks when a trajectory through batch norms is matched as if their statistics had moved."""
    task = tasks.make_task()
    network = nets.build(
        "convnet_bn", image_shape=task.image_shape, num_classes=3, width=4, depth=1
    )
    with pytest.raises(UserError, match=r"batch norm.*--config\.net\.name"):
        tasks.make_method("mtt", dataclasses.replace(task, network=network))
