"""What the stages hand to each other, seen in the files of small real runs.

Every test recomputes in plain code, from the snapshots on disk, what the next stage must have
made of them: which snapshots it read, what it started from, what moved and at which rate.
"""

import functools
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden_files import relative_error
from tests.pipeline import wiring
from tests.reference import plain

EXPERTS, STEPS = 3, 2
STAGES = ("representation", "classifier")
# Start epochs of the phases, growing over 20 of 45 iterations: lowest, current, highest.
RANGES = {"representation": (1, 2, 4), "classifier": (0, 1, 3)}
GROWTH, ITERATIONS = 20, 45
LOSS_WEIGHTS = {"representation": 0.7, "classifier": 0.4}
RATES, MOMENTA = (30.0, 5.0, 0.05), (0.5, 0.9, 0.3)  # images, labels, step size


@pytest.fixture(scope="session")
def cache(shared):
    """Directory of compiled programs: that of the environment if it names one."""
    return jax.config.values["jax_compilation_cache_dir"] or shared / "compiled"


@pytest.fixture(scope="session")
def made(shared, cache):
    """Runs the pipeline once for all tests and workers, and returns the working directory."""
    root = shared / "wiring"

    def once(name, make):
        (root / name).parent.mkdir(exist_ok=True)
        try:
            (root / name).mkdir()
        except FileExistsError:  # another worker makes it
            while not (root / name / "done").exists():
                time.sleep(0.05)
        else:
            try:
                make(root / name)
            finally:
                (root / name / "done").touch()
        return root / name

    def run(name, stages, fields, counts=wiring.LONG_TAILED):
        pictures = once(
            f"pictures_{counts[-1]}", lambda path: wiring.make_pictures(path / "set", counts)
        )
        run = functools.partial(wiring.run, pictures=pictures / "set", cache=cache, fields=fields)
        return once(name, lambda path: run(path / "run", stages=stages)) / "run"

    run.pictures = lambda counts: root / f"pictures_{counts[-1]}" / "set"
    return run


@pytest.fixture(scope="session")
def still(made):
    """Experts, and a synthetic set that no iteration moves: every loss is one of a table."""
    fields = wiring.FROZEN | wiring.loss_weights(LOSS_WEIGHTS)
    for stage in STAGES:
        fields |= wiring.starts(stage, *RANGES[stage], GROWTH)
    return made("still", ("experts", "distill"), fields | wiring.fields(iterations=ITERATIONS))


@pytest.fixture(scope="session")
def real(made, still):
    """A still synthetic set of any real images, from the same experts."""
    fields = wiring.fields(experts_path=str(still / "experts"), initial_images="real")
    return made("real", ("distill",), fields | wiring.FROZEN)


@pytest.fixture(autouse=True)
def _double_precision():
    """Plain code runs in float64."""
    with jax.enable_x64(True), wiring.quick_compilation():
        yield


class Snapshots:
    """All parameters of every snapshot of a run."""

    def __init__(self, workdir):
        self._found = wiring.snapshots(workdir)

    def __call__(self, stage, expert, epoch):
        epoch = wiring.EPOCHS[stage] if epoch == -1 else epoch
        if stage == "representation":
            return self._found[stage, expert, epoch]
        backbone = self._found["representation", expert, wiring.EPOCHS["representation"]]
        return backbone | self._found[stage, expert, epoch]


def phases():
    """The two phases of the paper, for `plain.matching_loss`."""
    counts = np.array(wiring.LONG_TAILED, np.float64)
    weighted, ones = jnp.asarray(counts / counts.sum()), jnp.ones(len(counts))
    return {
        "representation": (weighted, lambda _: True, lambda n: not plain.is_classifier(n), STEPS),
        "classifier": (ones, plain.is_classifier, lambda _: True, STEPS),
    }


def quantities(arrays):
    """(images, label logits, step size) in float64."""
    names = ("images", "label_logits", "step_size")
    return tuple(jnp.asarray(arrays[name], jnp.float64) for name in names)


def upper(stage, iteration):
    """First start epoch that can not yet be drawn."""
    _, current, highest = RANGES[stage]
    return min(current + (highest - current) * iteration // GROWTH, highest)


@functools.cache
def read_pairs(still, stage):
    """(expert, start epoch) which every iteration compared, told by its matching loss."""
    snapshots, synthetic = Snapshots(still), quantities(wiring.synthetic_set(still))
    loss = jax.jit(lambda pair: plain.matching_loss(synthetic, pair, phases()[stage]))
    low, _, highest = RANGES[stage]
    table = {}
    for expert in range(EXPERTS):
        for start in range(low, highest):
            ahead = start + wiring.MATCHED_EPOCHS
            pair = tuple(snapshots(stage, expert, epoch) for epoch in (start, ahead))
            table[expert, start] = float(loss(pair))
    values = np.sort(list(table.values()))
    assert np.diff(values).min() > 1e-4 * values.max(), "two pairs cannot be told apart"
    drawn = []
    for line in wiring.distill_metrics(still):
        seen = line[f"{stage}_loss"]
        drawn.append(min(table, key=lambda key: abs(table[key] - seen)))
        assert seen == pytest.approx(table[drawn[-1]], rel=1e-5), (len(drawn), drawn[-1])
    assert len(drawn) == ITERATIONS
    return drawn


@pytest.mark.parametrize("stage", STAGES)
def test_every_iteration_reads_a_pair_of_its_phase(still, stage):
    """Breaks when start or target come from another snapshot, stage or expert, when a phase has
    the other's weights, moves or matches other parameters, or when a range grows otherwise.
    """
    drawn, (low, _, highest) = read_pairs(still, stage), RANGES[stage]
    for iteration, (_, start) in enumerate(drawn):
        assert low <= start < upper(stage, iteration), iteration
    assert {start for _, start in drawn[GROWTH:]} == set(range(low, highest))
    passes = [drawn[i : i + EXPERTS] for i in range(0, ITERATIONS, EXPERTS)]
    assert all({expert for expert, _ in one} == set(range(EXPERTS)) for one in passes)
    assert len({tuple(expert for expert, _ in one) for one in passes}) > 1, "never shuffled anew"


def test_phases_have_their_own_order_and_their_weights(still):
    """Breaks when both phases read the same expert, or a loss weight is dropped or exchanged."""
    for line in wiring.distill_metrics(still):
        parts = [LOSS_WEIGHTS[stage] * line[f"{stage}_loss"] for stage in STAGES]
        assert line["loss"] == pytest.approx(sum(parts), rel=1e-5)
    orders = [[expert for expert, _ in read_pairs(still, stage)] for stage in STAGES]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("gradient", ["exact", "two_pass"])
def test_iterations_equal_plain_code(made, still, real, gradient):
    """Two whole iterations, start to finish, on the only pair there is and full batches.

    Breaks when anything of the iteration is wired otherwise: weights, phases, gradient, learning
    rates, momenta, loss weights, the two sums.
    """
    fields = wiring.fields(
        experts_path=str(still / "experts"), num_experts=1, initial_images="real", iterations=2,
        gradient=gradient,
    )  # fmt: skip
    fields |= wiring.outer_optimizers(RATES, MOMENTA) | wiring.loss_weights(LOSS_WEIGHTS)
    for stage in STAGES:
        fields |= wiring.starts(stage, 1, 1, 2)
    workdir = made(f"moved_{gradient}", ("distill",), fields)
    snapshots, arrays = Snapshots(still), wiring.synthetic_set(real)
    # With one expert the labels are its logits; the images do not depend on experts.
    images = jnp.asarray(arrays["images"], jnp.float64)
    label_logits = jax.jit(plain.logits)(snapshots("classifier", 0, -1), images)
    start = (images, label_logits, jnp.asarray(arrays["step_size"], jnp.float64))
    of_phase = {"exact": plain.exact_gradient, "two_pass": plain.two_pass_gradient}[gradient]

    @jax.jit
    def gradients(synthetic):
        parts = []
        for stage in STAGES:
            pair = tuple(snapshots(stage, 0, epoch) for epoch in (1, 1 + wiring.MATCHED_EPOCHS))
            pair = jax.tree.map(jnp.asarray, pair)
            found = of_phase(synthetic, pair, phases()[stage])
            parts.append([LOSS_WEIGHTS[stage] * g for g in found])
        return [one + other for one, other in zip(*parts, strict=True)]

    expected = plain.momentum_steps(start, gradients, RATES, MOMENTA, 2)
    found = quantities(wiring.synthetic_set(workdir))
    names = ("images", "label logits", "step size")
    for name, before, after, wanted in zip(names, start, found, expected, strict=True):
        assert relative_error(after - before, wanted - before) < 2e-4, name
        assert relative_error(after, before) > 1e-3, f"{name} hardly moves: nothing is compared"


def test_correct_images_are_those_of_the_first_trained_classifier_expert(made, still):
    """Breaks when another expert or another snapshot chooses the images."""
    snapshots, arrays = Snapshots(still), wiring.synthetic_set(still)
    images, labels = wiring.read_pictures(made.pictures(wiring.LONG_TAILED), "train")
    rows = find_rows(arrays["images"], images)
    predict = jax.jit(lambda params: plain.logits(params, jnp.asarray(images)).argmax(axis=1))
    right = np.asarray(predict(snapshots("classifier", 0, -1))) == labels
    assert 0 < right.sum() < len(right)
    np.testing.assert_array_equal(labels[rows], arrays["labels"])
    assert right[rows].all()
    for stage, expert, epoch in (("classifier", 0, 0), ("classifier", 1, -1)):
        other = np.asarray(predict(snapshots(stage, expert, epoch))) == labels
        assert not other[rows].all(), f"{stage} {expert} {epoch} would have chosen the same"


def test_initial_labels_are_means_over_all_trained_classifier_experts(still):
    """Breaks when wrong experts, untrained ones, or only some of them are asked."""
    snapshots, arrays = Snapshots(still), wiring.synthetic_set(still)
    images = jnp.asarray(arrays["images"], jnp.float64)
    total, hits = np.zeros(arrays["label_logits"].shape), np.zeros(len(images))
    for expert in range(EXPERTS):
        found = np.asarray(jax.jit(plain.logits)(snapshots("classifier", expert, -1), images))
        correct = found.argmax(axis=1) == arrays["labels"]
        total[correct] += found[correct]
        hits += correct
    assert set(hits) - {0, EXPERTS}, "every expert knows every image: nothing is filtered"
    expected = total / np.maximum(hits, 1)[:, None]
    assert relative_error(arrays["label_logits"], expected) < 1e-5


def test_real_images_are_any_and_labels_those_of_one_expert(made, real, still):
    """Breaks when labels are averaged, filtered, or those of an untrained expert."""
    snapshots, arrays = Snapshots(still), wiring.synthetic_set(real)
    images, labels = wiring.read_pictures(made.pictures(wiring.LONG_TAILED), "train")
    np.testing.assert_array_equal(labels[find_rows(arrays["images"], images)], arrays["labels"])
    inputs = jnp.asarray(arrays["images"], jnp.float64)
    errors = [
        relative_error(
            arrays["label_logits"], jax.jit(plain.logits)(snapshots("classifier", e, -1), inputs)
        )
        for e in range(EXPERTS)
    ]
    assert sorted(error < 1e-5 for error in errors) == [False, False, True]


def find_rows(synthetic, images):
    """Row of the real image that each synthetic one is."""
    distances = np.abs(synthetic[:, None] - images[None]).max(axis=(2, 3, 4))
    assert distances.min(axis=1).max() < 1e-6, "a synthetic image is no real one"
    return distances.argmin(axis=1)


def test_epochs_of_both_stages_equal_plain_code(made):
    """One batch holds every image once, so an epoch is one step without randomness.

    Breaks when stage 2 starts from another snapshot than the last of its expert, when its
    backbone moves or is another one, when a stage gets the other's recipe, or when experts are
    copies of one.
    """
    counts = wiring.BALANCED
    workdir = made("balanced", ("experts",), wiring.expert_batches(sum(counts)), counts)
    images, labels = wiring.read_pictures(made.pictures(counts), "train")
    snapshots = Snapshots(workdir)
    first = [snapshots("representation", expert, 0) for expert in range(EXPERTS)]
    for name in [name for name in first[0] if name.endswith("kernel")]:
        assert len({params[name].tobytes() for params in first}) == EXPERTS, name

    def loss(params):
        return plain.hard_loss(params, jnp.asarray(images), jnp.asarray(labels))

    for stage, trained in (("representation", lambda _: True), ("classifier", plain.is_classifier)):
        step = jax.jit(
            lambda params, stage=stage, trained=trained: plain.gsam_step(
                params, loss, trained, **wiring.settings_of(stage)
            )
        )
        for expert in range(EXPERTS):
            if stage == "classifier":
                first, last = snapshots(stage, expert, 0), snapshots("representation", expert, -1)
                assert all((first[name] == last[name]).all() for name in last)
            for epoch in range(wiring.EPOCHS[stage]):
                before, after = (snapshots(stage, expert, e) for e in (epoch, epoch + 1))
                expected = step(before)
                moved = {name for name in before if trained(name)}
                for name in moved:
                    change = after[name] - before[name]
                    wanted = expected[name] - before[name]
                    # Changes of a bias before a normalisation are rounding alone.
                    assert np.abs(change - wanted).max() < 1e-5, (stage, expert, epoch, name)
                assert max(np.abs(after[name] - before[name]).max() for name in moved) > 1e-3


def test_each_arm_of_the_evaluation_has_its_rate(made, cache, still, tmp_path):
    """Breaks when the distilled set is evaluated at the rate of real images or the other way round.

    The rate of the distilled set is the one in its file, whatever the config says.
    """
    # Labels that move a little, or the set would be its own start, which is evaluated once.
    fields = wiring.FROZEN | {"trajectory.label_lr": 1e-3}
    fields |= wiring.fields(experts_path=str(still / "experts"))
    one, other = (
        made(f"rate_{rate}", ("distill", "evaluate"), fields | wiring.rate_of_real_images(rate))
        for rate in (0.02, 0.4)
    )
    planted = shutil.copytree(other, tmp_path / "planted")
    wiring.plant_step_size(planted, 20.0)
    wiring.run(planted, made.pictures(wiring.LONG_TAILED), cache, ("evaluate",),
               fields | wiring.rate_of_real_images(0.4))  # fmt: skip
    results = [wiring.accuracies(workdir) for workdir in (one, other, planted)]
    for arm in results[0]:
        values = [result[arm] for result in results]
        of_config, of_file = values[0] != values[1], values[1] != values[2]
        learned = arm in ("distilled", "initial")
        assert (of_config, of_file) == ((False, True) if learned else (True, False)), arm
    assert results[0].keys() == {
        "distilled", "initial", "initial_at_baseline_rate", "random_real", "full_real"
    }  # fmt: skip
