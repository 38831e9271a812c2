"""What the trajectory family makes of its settings before anything is compiled.

Snapshots carry their own names instead of parameters, so that every choice can be read off.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import losses
from ltdd_jax.distill import state as states
from ltdd_jax.distill import trajectory
from tests.distill import tasks

KINDS = ("representation", "classifier")
COUNTS, IPC, NUM_EXPERTS, LAST = (60, 30, 10), 5, 3, 9
# Start epochs of the phases, growing over 20 of 45 iterations: lowest, current, highest.
RANGES = {"representation": (1, 2, 4), "classifier": (0, 1, 3)}
GROWTH, ITERATIONS, AHEAD = 20, 45, 2

Network = collections.namedtuple("Network", "apply")


def settings_of(name, **fields):
    return tasks.make_config(name, **fields).trajectory.to_dict()


def named_snapshot(kind, expert, epoch):
    """Both parts say where they come from; epoch -1 is the last."""
    name = np.array([KINDS.index(kind), expert, LAST if epoch == -1 else epoch])
    return {"conv": {"kernel": name}, "classifier": {"kernel": name}}


def table_of(name):
    """Logits of every training image for the snapshot of that name; about half are right."""
    generator = np.random.default_rng(np.asarray(name))
    logits = generator.normal(size=(sum(COUNTS), len(COUNTS)))
    return logits + 0.7 * np.eye(len(COUNTS))[np.repeat(range(3), COUNTS)]


def make_task():
    """A network that looks its logits up; an image is its number, counted from 1."""

    def apply(params, images):
        tables = params["classifier"]["table"]
        return tables[jnp.round(images[:, 0, 0, 0]).astype(jnp.int32) - 1]

    def snapshot(kind, expert, epoch):
        found = named_snapshot(kind, expert, epoch)
        table = table_of(found["conv"]["kernel"]).astype(np.float32)
        return {**found, "classifier": {**found["classifier"], "table": table}}

    task = tasks.make_task(side=4, width=1, class_counts=COUNTS)
    images = np.ones((sum(COUNTS), 4, 4, 1), np.float32)
    images *= np.arange(1, len(images) + 1, dtype=np.float32)[:, None, None, None]
    changed = {
        "network": Network(apply), "images": images, "snapshot": snapshot,
        "num_experts": NUM_EXPERTS,
    }  # fmt: skip
    return type(task)(**{**vars(task), **changed})


def test_phases_of_the_paper():
    """Breaks when a phase has the other's weights, or moves or matches other parameters."""
    settings = settings_of(
        "dam_ed",
        trajectory__representation__loss_weight=0.7,
        trajectory__classifier__loss_weight=0.4,
        trajectory__representation__student_steps=5,
        trajectory__classifier__step_size_factor=3.0,
        trajectory__num_shards=3,
    )
    found = [vars(phase).copy() for phase in trajectory.make_phases(settings, COUNTS)]
    weights = [phase.pop("class_weights") for phase in found]
    common = {"batch_size": 4, "num_shards": 3}
    assert found == [
        {"name": "representation", "moved": "all", "matched": "backbone", "student_steps": 5,
         "loss_weight": 0.7, "step_size_factor": 1.0, **common},
        {"name": "classifier", "moved": "classifier", "matched": "classifier",
         "student_steps": 2, "loss_weight": 0.4, "step_size_factor": 3.0, **common},
    ]  # fmt: skip
    np.testing.assert_allclose(weights[0], (0.6, 0.3, 0.1), rtol=1e-6)
    assert weights[1] is None


@pytest.fixture(scope="module")
def pairs():
    """Kind -> of each iteration, the names of the start and of the target snapshot."""
    fields = {"trajectory__num_iterations": ITERATIONS, "trajectory__expert_epochs": AHEAD}
    for kind, epochs in RANGES.items():
        names = ("min_start_epoch", "current_start_epoch", "max_start_epoch")
        fields |= {f"trajectory__{kind}__{n}": e for n, e in zip(names, epochs, strict=True)}
        fields |= {f"trajectory__{kind}__sequential": True}
        fields |= {f"trajectory__{kind}__expansion_end": GROWTH}
    settings = settings_of("dam_ed", **fields)
    task = type(make_task())(**{**vars(make_task()), "snapshot": named_snapshot})
    phases = trajectory.make_phases(settings, COUNTS)
    read = trajectory.make_reader(task, phases, settings)
    found = {kind: [] for kind in KINDS}
    for iteration in range(ITERATIONS):
        for kind, pair in zip(KINDS, read(iteration), strict=True):
            (target,) = jax.tree.leaves(pair.target)  # one part alone
            assert pair.target.keys() == ({"classifier"} if kind == "classifier" else {"conv"})
            names = [*jax.tree.leaves(pair.start), target]
            np.testing.assert_array_equal(names[0], names[1])
            found[kind].append(tuple(tuple(map(int, name)) for name in names[1:]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_iteration_reads_a_pair_of_its_phase(pairs, kind):
    """Breaks when start or target is another snapshot, or when a range grows otherwise."""
    low, current, highest = RANGES[kind]
    for iteration, (start, target) in enumerate(pairs[kind]):
        upper = min(current + (highest - current) * iteration // GROWTH, highest)
        assert start[0] == KINDS.index(kind) and low <= start[2] < upper, iteration
        assert target == (*start[:2], start[2] + AHEAD)
    assert {start[2] for start, _ in pairs[kind][GROWTH:]} == set(range(low, highest))
    experts = [start[1] for start, _ in pairs[kind]]
    passes = [tuple(experts[i : i + NUM_EXPERTS]) for i in range(0, ITERATIONS, NUM_EXPERTS)]
    assert all(sorted(one) == list(range(NUM_EXPERTS)) for one in passes)
    assert len(set(passes)) > 1, "never shuffled anew"


def test_phases_have_their_own_order(pairs):
    """Breaks when both phases draw from one stream."""
    orders = [[start[1] for start, _ in pairs[kind]] for kind in KINDS]
    assert orders[0] != orders[1]


def rows_of(start):
    """Which training image each synthetic one is."""
    return np.round(np.asarray(start.images)[:, 0, 0, 0]).astype(int) - 1


def start_of(**fields):
    return trajectory.make_start(make_task(), IPC, settings_of("dam_ed", **fields))


def test_correct_images_are_those_of_the_first_trained_classifier_expert():
    """Breaks when another expert or another snapshot chooses the images."""
    task = make_task()
    start = start_of(trajectory__initial_images="correct")
    predicted = table_of((1, 0, LAST)).argmax(axis=1)
    right = predicted == task.labels
    rows = rows_of(start)
    for label in range(3):
        candidates = np.flatnonzero(right & (task.labels == label))
        if len(candidates):
            found = rows[IPC * label : IPC * (label + 1)]
            assert set(found) <= set(candidates)
            assert len(set(found)) == min(IPC, len(candidates))
    for other in ((1, 0, 0), (1, 1, LAST), (1, 2, LAST), (0, 0, LAST)):
        known = rows[rows >= 0]
        knows = table_of(other).argmax(axis=1) == task.labels
        assert not knows[known[known < len(knows)]].all(), f"{other} would have chosen the same"


def test_initial_labels_are_means_over_all_trained_classifier_experts():
    """Breaks when wrong experts, untrained ones, or only some of them are asked."""
    task = make_task()
    start = start_of(trajectory__initial_images="correct")
    hits = []
    for row, label, found in zip(rows_of(start), np.repeat(range(3), IPC), start.label_logits,
                                 strict=True):  # fmt: skip
        if not (0 <= row < len(task.labels) and task.labels[row] == label):
            continue  # noise, where the first expert knows no image of the class
        logits = [table_of((1, expert, LAST))[row] for expert in range(NUM_EXPERTS)]
        right = [x for x in logits if x.argmax() == label]
        hits.append(len(right))
        np.testing.assert_allclose(found, np.mean(right, axis=0), rtol=1e-5)
    assert max(hits) > 1 and min(hits) < NUM_EXPERTS, "nothing is averaged or filtered"


@pytest.mark.parametrize("scanned", ["first", "all"])
def test_a_class_that_no_expert_knows_is_noise_or_real(scanned):
    """Breaks when DATM begins a class as noise, or the paper's method as real images."""
    task = make_task()
    know_all = task.snapshot

    def snapshot(kind, expert, epoch):
        params = know_all(kind, expert, epoch)
        table = params["classifier"]["table"].copy()
        table[:, 2] -= 1000.0  # nothing is of class 2
        if expert == 0:
            table[:, 1] -= 1000.0  # which the others know
        return {**params, "classifier": {**params["classifier"], "table": table}}

    task = dataclasses.replace(task, snapshot=snapshot)
    settings = settings_of(
        "dam_ed", trajectory__initial_images="correct", trajectory__scanned_experts=scanned
    )
    start = trajectory.make_start(task, IPC, settings)
    rows, logits = rows_of(start), np.asarray(start.label_logits)
    hard = losses.hard_label_logits(np.full(IPC, 2), 3)
    if scanned == "all":
        np.testing.assert_array_equal(task.labels[rows], np.repeat(range(3), IPC))
        np.testing.assert_array_equal(logits[2 * IPC :], hard)
        of_others = logits[IPC : 2 * IPC]  # what the first expert does not know
        assert (of_others.argmax(axis=1) == 1).all() and of_others.max() < hard.max() / 2
    else:
        pixels = np.asarray(start.images)
        assert np.ptp(pixels[:IPC], axis=(1, 2, 3)).max() == 0  # real ones are of one value
        assert np.ptp(pixels[IPC:], axis=(1, 2, 3)).min() > 0
        np.testing.assert_array_equal(logits[2 * IPC :], 0)


def test_real_images_are_any_and_labels_those_of_one_expert():
    """Breaks when labels are averaged, filtered, or those of an untrained expert."""
    start = start_of(trajectory__initial_images="real")
    rows = rows_of(start)
    np.testing.assert_array_equal(make_task().labels[rows], np.repeat(range(3), IPC))
    same = [
        np.allclose(start.label_logits, table_of((1, expert, LAST))[rows], rtol=1e-5)
        for expert in range(NUM_EXPERTS)
    ]
    assert sorted(same) == [False, False, True]


RATES = {"image": 30.0, "label": 5.0, "step_size": 0.05}
MOMENTA = {"image": 0.5, "label": 0.9, "step_size": 0.3}


@pytest.fixture
def options(monkeypatch):
    """(name of a method, fields) -> options of its optimiser and of its step, as they arrive."""
    found = {}
    made = states.make_outer_optimizer

    def catch_optimizer(**options):
        found.update(options)
        return made(**options)

    def catch_step(network, phases, tx, augment, **options):
        found.update(options)
        return lambda state, pairs: (state, {})

    monkeypatch.setattr(trajectory.states, "make_outer_optimizer", catch_optimizer)
    monkeypatch.setattr(trajectory.steps, "make_distill_step", catch_step)

    def build(name, **fields):
        found.clear()
        tasks.make_method(name, tasks.make_task(side=4, width=1), **fields)
        return dict(found)

    return build


def test_every_setting_of_the_step_arrives_at_it(options):
    """Breaks when images take the labels' rate or momentum, or a setting gets lost."""
    fields = {f"trajectory__{part}_lr": rate for part, rate in RATES.items()}
    fields |= {f"trajectory__{part}_momentum": value for part, value in MOMENTA.items()}
    found = options(
        "dam_ed", **fields, trajectory__gradient="two_pass", trajectory__skip_threshold=1.5,
        trajectory__image_ema=0.75, trajectory__pairs_per_iteration=2,
        trajectory__optimizer="adam", trajectory__schedule="cosine", trajectory__num_iterations=7,
        trajectory__partition=2,
    )  # fmt: skip
    map_pairs = found.pop("map_pairs")
    assert map_pairs is tasks.make_task(side=4, width=1).map_pairs
    expected = {f"{part}_lr": rate for part, rate in RATES.items()}
    expected |= {f"{part}_momentum": value for part, value in MOMENTA.items()}
    assert found == expected | {
        "optimizer": "adam", "fall_steps": 7,
        "gradient": "two_pass", "skip_threshold": 1.5, "mean_decay": 0.75,
        "target_labels": False, "num_pairs": 2, "partition": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "label_lr", "from_target"),
    [("soft", 5.0, False), ("hard", 0.0, False), ("target", 0.0, True)],
)
def test_only_soft_labels_are_learned(options, labels, label_lr, from_target):
    """Breaks when hard labels drift, or are renewed like those of the target snapshot."""
    found = options("mtt", trajectory__labels=labels, trajectory__label_lr=5.0)
    assert (found["label_lr"], found["target_labels"]) == (label_lr, from_target)
