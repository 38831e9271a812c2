"""Which set every row of an evaluation is of, and at which rate; how a rate is chosen.

Nothing is trained: a stand-in for the networks answers as the rate says.
"""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import config as configs
from ltdd_jax.data import disk_images, long_tail, normalize, request, streamed
from ltdd_jax.distill.method import Teacher
from ltdd_jax.pipeline import artefacts, claims, evaluate, labels, rows, taught_rows, transfer
from ltdd_jax.runtime import interrupt
from ltdd_jax.types import SyntheticSet, UserError
from tests.pipeline import fake_teachers, small_run

# Row -> the set it is of (None: real images), the set whose step size is its rate (None: chosen),
# the row whose rate it takes.
ROWS = {
    "distilled": (artefacts.FINAL, artefacts.FINAL, ""),
    "initial": (artefacts.INITIAL, artefacts.FINAL, ""),
    "initial_at_baseline_rate": (artefacts.INITIAL, None, "random_real"),
    "iteration_000003": ("iteration_000003", "iteration_000003", ""),
    "random_real": (None, None, ""),
    "full_real": (None, None, ""),
}


@pytest.fixture
def made(tmp_path):
    """(run, its sets, its rows by name)."""
    run = small_run.make_run(tmp_path, evaluation__curve=True)
    sets = small_run.write_sets(run)
    return run, sets, {row.name: row for row in rows.make_rows(run)}


def test_every_row_has_its_set_and_its_rate(made):
    """Breaks when the distilled set is trained at the rate of real images or the other way round,
    or when the first set is read from the file of the last.
    """
    _, sets, found = made
    assert list(found) == list(ROWS)
    for name, (of_set, rate_of_set, rate_of) in ROWS.items():
        row = found[name]
        expected = None if rate_of_set is None else float(sets[rate_of_set].step_size)
        assert (row.rate, row.rate_of) == (expected, rate_of), name
        assert (row.load_kept is not None) == row.is_shared == (of_set is None), name
        if of_set:
            images, logits = row.load(2)
            for lane in range(2):
                np.testing.assert_array_equal(images[lane], sets[of_set].images)
                np.testing.assert_array_equal(logits[lane], sets[of_set].label_logits)
    of_sets = {name: found[name].made_of for name, (of_set, *_) in ROWS.items() if of_set}
    assert len(set(of_sets.values())) == 3
    assert of_sets["initial"] == of_sets["initial_at_baseline_rate"]


def test_a_damaged_set_on_the_way_is_moved_aside_and_left_out(made, capsys):
    """Breaks when the user is told to delete it and distil again, which never writes it again."""
    run = made[0]
    path = artefacts.find_set(run, "iteration_000003")
    path.write_bytes(path.read_bytes()[:-100])
    assert [row.name for row in rows.make_rows(run)] == [x for x in ROWS if x != path.stem]
    warning = capsys.readouterr().out
    assert f"moved to {path.name}.damaged-1, and the curve has no point after 3" in warning
    assert "run --stage" not in warning and warning.count("\n") == 1
    assert not path.exists() and (path.parent / f"{path.name}.damaged-1").exists()
    rows.make_rows(run)
    assert not capsys.readouterr().out


# Method of the set, the field that its step size comes from.
FIELDS = [
    ("dam_ed", "trajectory.initial_step_size"),
    ("dc", "gradient_matching.step_size"),
    ("idm", "distribution_matching.step_size"),
    ("krr", "kernel.step_size"),
    ("rded", "crops.step_size"),
    ("k_medoids", "evaluation.baseline_rates"),  # a selection takes the rate of random images
]


@pytest.mark.parametrize(("method", "field"), FIELDS)
def test_a_row_that_diverges_names_the_field_of_its_rate(tmp_path, method, field):
    """Breaks when a set of matched distributions is said to take its rate from trajectories."""
    run = small_run.make_run(
        tmp_path, distill__method=method, evaluation__protocols="sgd,adam", evaluation__curve=True
    )
    small_run.write_sets(run)
    found = rows.make_rows(run)
    found = {row.name: row for row in [*found, *transfer.make_rows(run, found)]}
    grid, adam = "evaluation.baseline_rates", "evaluation.adam_rate"
    fields = {"random_real": grid, "full_real": grid, "initial_at_baseline_rate": grid}
    fields |= dict.fromkeys((name for name in found if name.endswith("_adam")), adam)
    assert sum(name.endswith("_adam") for name in found) == 2
    for name, row in found.items():
        expected = fields.get(name, field)
        assert (row.rate_field, f"--config.{expected}," in row.remedy) == (expected, True), name


def test_students_of_a_teacher_name_their_own_rates(tmp_path, monkeypatch):
    run = small_run.make_run(tmp_path)
    small_run.write_sets(run)
    fake_teachers.install(monkeypatch, fake_teachers.make(0))
    fields = {row.name: row.rate_field for row in taught_rows.make_rows(run)}
    names = ("ii_random_real", "ii_initial", "ii_distilled")
    assert fields == dict.fromkeys(names, "student.learning_rates")


def test_a_set_that_is_what_it_began_as_is_trained_on_once(made, monkeypatch):
    """Breaks when the set of RDED, which nothing changes, is compared with itself."""
    run, sets, before = made
    labels_of = np.repeat(np.arange(3), small_run.IPC).astype(np.int32)
    artefacts.write_set(run, sets[artefacts.INITIAL], labels_of, artefacts.FINAL)
    assert [row.name for row in rows.make_rows(run)] == [x for x in before if x != "initial"]
    fake_teachers.install(monkeypatch, fake_teachers.make(0))
    taught = [row.name for row in taught_rows.make_rows(run)]
    assert taught == ["ii_random_real", "ii_distilled"]


def test_labels_alone_make_no_other_set_for_students_of_a_teacher(tmp_path, monkeypatch):
    """Breaks when the same images, which no student reads a stored label of, are two rows."""
    run = small_run.make_run(tmp_path, labels__relabel="teacher")
    sets = small_run.write_sets(run)
    labels_of = np.repeat(np.arange(3), small_run.IPC).astype(np.int32)
    artefacts.write_set(run, sets[artefacts.INITIAL], labels_of, artefacts.FINAL)
    network = types.SimpleNamespace(apply=lambda params, x: x.reshape(len(x), -1) @ params)
    fake_teachers.install(monkeypatch, Teacher(network, np.eye(4, 3, dtype=np.float32)))
    labels.run_relabel(run)
    assert "initial" in [row.name for row in rows.make_rows(run)]  # the labels of the method
    taught = taught_rows.make_rows(run)
    assert [row.name for row in taught] == ["ii_random_real", "ii_distilled"]
    again = taught_rows.make_rows(small_run.make_run(tmp_path))
    assert [row.made_of for row in again] == [row.made_of for row in taught]


def test_a_method_without_a_field_for_the_rate_is_said_to_decide_it(tmp_path, monkeypatch):
    run = small_run.make_run(tmp_path, distill__method="dc")
    small_run.write_sets(run)
    monkeypatch.setattr(rows, "_STEP_SIZES", ())
    distilled = rows.make_rows(run)[0]
    assert "--config" not in distilled.remedy and "its method gives" in distilled.remedy


def test_real_rows_of_a_set_on_disk_are_those_of_the_set(made, tmp_path):
    """Breaks when the images that judge a rate are among those that are trained on."""
    run, _, found = made
    pixels = run.problem.train.images
    images = disk_images.write(
        request.Request(cache=str(tmp_path / "cache")),
        {},
        len(pixels),
        pixels.shape[1:],
        lambda start, end: pixels[start:end],
    )
    train = dataclasses.replace(run.problem.train, images=images)
    rows_of_disk = streamed.preprocess(run.problem.preprocessing, images)
    problem = dataclasses.replace(run.problem, train=train, train_images=rows_of_disk)
    streaming = dataclasses.replace(run, problem=problem)
    on_disk = {row.name: row for row in rows.make_rows(streaming)}
    kept = np.array([0, 2, 3, 31, 33, 41, 44])
    for name in ("random_real", "full_real"):
        for load in (lambda row: row.load(2), lambda row: row.load_kept(kept, 2)):
            expected = [np.asarray(part) for part in load(found[name])]
            every = np.arange(len(expected[0]))
            for part, array in zip(load(on_disk[name]), expected, strict=True):
                np.testing.assert_allclose(np.asarray(part[every]), array, atol=1e-6)


def test_random_images_are_as_many_of_every_class_as_the_set_has(tmp_path):
    """Breaks when a set of unequal classes is compared with as many of each as of its largest."""
    run, numbers = small_run.make_run(tmp_path), [4, 2, 0]
    labels = np.repeat(np.arange(3), numbers).astype(np.int32)
    made = SyntheticSet(
        images=jnp.zeros((6, 2, 2, 1)), label_logits=jnp.zeros((6, 3)), step_size=jnp.float32(0.01)
    )
    claims.claim_set(run.workspace, {})
    for name in (artefacts.INITIAL, artefacts.FINAL):
        artefacts.write_set(run, made, labels, name)
    found = {row.name: row for row in rows.make_rows(run)}["random_real"]
    images, logits = found.load(2)
    assert found.num_rows == 6 and images.shape[:2] == (2, 6)
    np.testing.assert_array_equal(logits.argmax(axis=2), [labels, labels])
    assert "4, 2, 0" in found.made_of  # another row than that of two images of each class


def test_further_rows_change_labels_or_pixels_and_nothing_else(tmp_path):
    """Breaks when hard labels come from the wrong class, pixels keep more than 8 bits, or bytes are
    counted for what is not stored.
    """
    run = small_run.make_run(tmp_path, evaluation__extra_rows=("hard", "8bit"))
    final = small_run.write_sets(run)[artefacts.FINAL]
    found = {row.name: row for row in rows.make_rows(run)}
    assert list(found)[:4] == ["distilled", "distilled_hard", "distilled_8bit", "initial"]
    images, logits = found["distilled_hard"].load(1)
    np.testing.assert_array_equal(images[0], final.images)
    np.testing.assert_array_equal(logits[0].argmax(axis=1), np.repeat(np.arange(3), 2))
    images, logits = found["distilled_8bit"].load(1)
    np.testing.assert_allclose(
        images[0], np.rint(np.clip(final.images, 0, 1) * 255) / 255, atol=1e-6
    )
    np.testing.assert_array_equal(logits[0], final.label_logits)
    assert {found[name].rate for name in list(found)[:3]} == {float(final.step_size)}
    regimes = {name: row.regime for name, row in found.items()}
    assert regimes["distilled"] == regimes["distilled_8bit"] == regimes["initial"] == "S1"
    assert regimes["distilled_hard"] == regimes["random_real"] == regimes["full_real"] == "H"
    pixels, numbers = 6 * 4, 6 * 3
    assert found["distilled"].stored_bytes == {
        "images": 4 * pixels, "labels": 4 * numbers, "teacher": 0
    }  # fmt: skip
    assert found["distilled_hard"].stored_bytes["labels"] == 0
    assert found["distilled_8bit"].stored_bytes["images"] == pixels


def test_rows_of_some_kinds_come_with_those_whose_rate_they_take(tmp_path, monkeypatch):
    """Breaks when a kind brings rows of another, or a row is left without the rate it needs."""
    fake_teachers.install(monkeypatch, Teacher(None, {"w": np.zeros(3, np.float32)}))
    fields = {"evaluation__extra_rows": ("hard", "8bit"), "evaluation__curve": True}
    run = small_run.make_run(tmp_path, evaluation__networks="convnet,mlp", **fields)
    small_run.write_sets(run)
    common = rows.make_rows(run)
    made = [*common, *transfer.make_rows(run, common), *taught_rows.make_rows(run)]

    def choose(*kinds):
        return [row.name for row in rows.choose_rows(made, kinds)]

    assert choose(*configs.ROWS) == [row.name for row in made]
    assert choose("full_real") == ["full_real"]
    assert choose("random_real") == ["random_real", "random_real@mlp", "ii_random_real"]
    of_set = ["distilled", "distilled_hard", "distilled_8bit", "iteration_000003", "distilled@mlp"]
    assert choose("distilled") == [*of_set, "ii_random_real", "ii_distilled"]
    assert choose("initial") == ["initial", "ii_random_real", "ii_initial"]
    assert choose("initial_at_baseline_rate") == ["initial_at_baseline_rate", "random_real"]
    with pytest.raises(
        UserError, match=r"evaluation.rows=\('initial',\) leaves nothing .* full_real"
    ):
        rows.choose_rows([row for row in common if row.name == "full_real"], ("initial",))


def test_the_rate_of_a_selection_is_not_judged_by_images_that_are_in_it(tmp_path):
    """Breaks when networks are trained on held-out images, since a selection is of all images."""
    run = small_run.make_run(tmp_path, distill__method="k_center")
    small_run.write_sets(run)
    found = {row.name: row for row in rows.order_for_rates(rows.make_rows(run))}
    assert list(found) == ["random_real", "full_real", "distilled"]
    tuned = [row.name for row in found.values() if row.rate is None and not row.rate_of]
    assert tuned == ["random_real", "full_real"]  # whose images are drawn from those kept
    assert found["distilled"].rate_of == "random_real"


@pytest.mark.parametrize("whiten", [False, True])
def test_pixels_of_8_bits_are_stored_as_bytes(tmp_path, whiten):
    """Breaks when images that a method has rounded, or only cut, count four bytes for a value; or
    when images with finer pixels count one.
    """
    run = small_run.make_run(tmp_path)
    problem = dataclasses.replace(
        run.problem, preprocessing=normalize.fit(run.problem.train.images, whiten=whiten)
    )
    run = dataclasses.replace(run, problem=problem)
    small_run.write_sets(run)
    final = artefacts.read_set(run, artefacts.FINAL)
    pixels = np.arange(6 * 4).reshape(final.synthetic.images.shape) / np.float32(24)
    for levels, num_bytes in ((255, 1), (1023, 4)):
        images = normalize.apply(problem.preprocessing, np.rint(pixels * levels) / levels)
        synthetic = dataclasses.replace(final.synthetic, images=images)
        artefacts.write_set(run, synthetic, final.labels, artefacts.FINAL)
        (row,) = (x for x in rows.make_rows(run) if x.name == "distilled")
        assert row.stored_bytes["images"] == num_bytes * 6 * 4


def test_random_real_images_get_labels_of_the_same_source(tmp_path, monkeypatch):
    """Breaks when the set is compared with hard labels alone, its labels are of other images, or
    points of its curve have labels of their method and the last one those of a teacher.
    """
    teacher = Teacher(
        types.SimpleNamespace(apply=lambda params, x: x.reshape(len(x), -1) @ params),
        5 * np.eye(4, 3),
    )
    teacher = dataclasses.replace(teacher, params=teacher.params.astype(np.float32))
    fake_teachers.install(monkeypatch, teacher)
    run = small_run.make_run(tmp_path, labels__relabel="teacher", evaluation__curve=True)
    run = dataclasses.replace(run, stop=interrupt.StopRequest())
    small_run.write_sets(run)
    labels.run_relabel(run)
    found = {row.name: row for row in rows.make_rows(run)}
    soft, hard = found["random_real_soft"], found["random_real"]
    assert (soft.rate, soft.rate_of, soft.regime) == (None, "random_real", "S1")
    for row in (soft, found["distilled"], found["iteration_000003"]):
        images, logits = row.load(2)
        for lane in range(2):
            expected = images[lane].reshape(6, 4)[:, :3] * 5
            np.testing.assert_allclose(logits[lane], expected, rtol=1e-5)
    np.testing.assert_array_equal(soft.load(2)[0], hard.load(2)[0])


def test_sets_of_a_curve_without_labels_are_left_out_with_the_remedy(tmp_path, monkeypatch, capsys):
    """Breaks when a set that was labelled before a curve was asked for cannot be evaluated, or
    what the warning says does not help.
    """
    network = types.SimpleNamespace(apply=lambda params, x: x.reshape(len(x), -1) @ params)
    fake_teachers.install(monkeypatch, Teacher(network, np.eye(4, 3, dtype=np.float32)))
    fields = {"labels__relabel": "teacher", "evaluation__curve": False}
    run = small_run.make_run(tmp_path, **fields)
    small_run.write_sets(run)
    labels.run_relabel(run)
    run = small_run.make_run(tmp_path, labels__relabel="teacher", evaluation__curve=True)
    capsys.readouterr()
    assert "iteration_000003" not in [row.name for row in rows.make_rows(run)]
    said = capsys.readouterr().out
    assert "is missing, so that the curve has no point after 3 iterations" in said
    assert "--stage=distill" in said and "--config.evaluation.curve=true" in said
    labels.run_relabel(dataclasses.replace(run, stop=interrupt.StopRequest()))
    assert "iteration_000003" in [row.name for row in rows.make_rows(run)]


def test_distilled_rows_are_ranked_within_their_block():
    """Breaks when a row is compared with the other block, or with other labels than its own."""
    means = {
        "distilled": 50.0, "distilled_hard": 30.0, "random_real": 35.0, "random_real_soft": 40.0,
        "full_real": 70.0, "ii_random_real": 58.0, "ii_distilled": 60.0,
    }  # fmt: skip
    found = evaluate._rank({name: {"mean": x, "labels": "S1"} for name, x in means.items()})
    one, two = found["distilled"], found["ii_distilled"]
    assert (one["hlr"], one["ior"]) == (40, 10) and (two["hlr"], two["ior"]) == (40, 2)
    assert one["lrs"] > two["lrs"]
    assert not any("ior" in row for name, row in found.items() if "distilled" not in name)
    del means["full_real"], means["random_real_soft"]
    found = evaluate._rank({name: {"mean": x, "labels": "S1"} for name, x in means.items()})
    assert found["distilled"]["ior"] == 15 and found["distilled"]["hlr"] is None
    assert found["distilled"]["lrs"] is None
    whole = {"distilled": {"mean": 50.0, "labels": "H"}, "full_real": {"mean": 70.0}}
    assert evaluate._rank(whole)["distilled"]["hlr"] == 20


def test_rates_that_a_row_takes_from_another_are_known_before(made):
    _, _, found = made
    order = [row.name for row in rows.order_for_rates(list(found.values()))]
    assert sorted(order) == sorted(found)
    assert order.index("random_real") < order.index("initial_at_baseline_rate")


# Rate -> classes that a network trained with it gets right. The first knows most images, the
# second most classes.
KNOWS = {0.1: {0}, 0.02: {1, 2}, 0.05: set()}


class Networks:
    """Stands for trainers: remembers what they saw; answers by the rate of each lane."""

    def __init__(self, problem):
        self.problem = problem
        self.row_of = {image.tobytes(): i for i, image in enumerate(problem.train_images)}
        self.trained, self.judged, self.data = set(), [], []

    def get(self, row, num_epochs):
        assert num_epochs == 0
        return self

    def train(self, job, data, rates):
        images, logits = data
        self.data.append((tuple(rates), job.seeds, images))
        found = [self.row_of[image.tobytes()] for image in images.reshape(-1, 2, 2, 1)]
        classes = logits.reshape(-1, 3).argmax(axis=1)
        np.testing.assert_array_equal(classes, self.problem.train.labels[found])
        self.trained |= set(found)
        return rates

    def predict(self, row, rates, images):
        found = [self.row_of[image.tobytes()] for image in images]
        self.judged.append(found)
        labels = self.problem.train.labels[found]
        right = np.array([[label in KNOWS[rate] for label in labels] for rate in rates])
        return np.where(right, labels, (labels + 1) % 3)


@pytest.mark.parametrize("name", ["random_real", "full_real"])
def test_rate_is_chosen_on_held_out_training_images(made, tmp_path, name):
    """Breaks when a held-out image is trained on, the test images or all classes together judge,
    the worst rate is taken, or scores go to another rate.
    """
    run, _, found = made
    run.config.evaluation.baseline_rates = tuple(KNOWS)
    networks = Networks(run.problem)
    assert len(networks.row_of) == len(run.problem.train.labels), "equal pictures"
    best, scores = evaluate._choose_rate(run, networks, found[name], tmp_path / "rates")
    kept, held = long_tail.hold_out((run.config.seed, 1), run.problem.train.labels, 0.2)
    assert all(judged == list(held) for judged in networks.judged)
    assert networks.trained <= set(kept)
    assert best == 0.02
    assert scores == pytest.approx({"0.1": 100 / 3, "0.02": 200 / 3, "0.05": 0})
    lanes = [lane for rates, _, _ in networks.data for lane in rates]
    assert set(lanes) == set(KNOWS)


def test_every_seed_is_compared_on_its_own_random_images(made, tmp_path):
    """Breaks when all networks of a comparison see the images of the first."""
    run, _, found = made
    run.config.evaluation.baseline_rates = tuple(KNOWS)
    networks = Networks(run.problem)
    evaluate._choose_rate(run, networks, found["random_real"], tmp_path / "rates")
    seen = {}
    for rates, seeds, images in networks.data:
        for rate, seed, image in zip(rates, seeds, images, strict=True):
            seen[rate, seed] = image.tobytes()
    assert seen.keys() == {(rate, seed) for rate in KNOWS for seed in range(2)}
    for rate in KNOWS:
        assert seen[rate, 0] == seen[0.1, 0] != seen[rate, 1] == seen[0.1, 1]


@pytest.mark.parametrize("rates", [(0.03,), (0.02, 0.05)])
def test_each_row_is_trained_at_its_rate(made, monkeypatch, rates):
    """Breaks when rates are exchanged between rows."""
    run, sets, _ = made
    trained = {}

    def train(run, trainers, row, rate):
        trained[row.name] = rate
        chosen = {"random_real": 0.07, "full_real": 0.08}
        return {"rate": rate if rate is not None else chosen[row.name]}

    monkeypatch.setattr(evaluate, "_evaluate_row", train)
    monkeypatch.setattr(evaluate, "Trainers", lambda run: None)
    monkeypatch.setattr(evaluate, "_summarize", lambda run, row, found: found["rate"])
    monkeypatch.setattr(evaluate, "_rank", lambda summaries: summaries)
    run.config.evaluation.baseline_rates = rates
    found, _ = evaluate.run_evaluate(run)
    final, kept = (float(sets[name].step_size) for name in (artefacts.FINAL, "iteration_000003"))
    assert trained == {
        "distilled": final, "initial": final, "initial_at_baseline_rate": 0.07,
        "iteration_000003": kept, "random_real": None, "full_real": None,
    }  # fmt: skip
    assert list(found) == list(ROWS)


class Student:
    """Stands for the trainers: remembers what a row trains on and answers with class 0."""

    def __init__(self):
        self.data = None

    def get(self, row, num_epochs=0):
        return self

    def train(self, job, data, rates):
        self.data = data
        return rates

    def predict(self, row, state, images):
        return np.zeros((len(state), len(images)), np.int32)


def test_students_see_every_picture_of_an_image(tmp_path):
    """Breaks when a set whose images hold 2 x 2 pictures is trained on as it is stored, or the
    labels and pictures have different orders.
    """
    run = small_run.make_run(tmp_path)
    small_run.write_sets(run, partition=2)
    run = dataclasses.replace(run, stop=interrupt.StopRequest())
    row = rows.make_rows(run)[0]
    student = Student()
    found = evaluate._evaluate_row(run, student, row, row.rate)
    images, logits = student.data
    assert images.shape == (2, 4 * 6, 2, 2, 1) and logits.shape == (2, 4 * 6, 3)
    stored = artefacts.read_set(run, artefacts.FINAL)
    for cell in range(4):  # of one pixel each, so that a picture is one number
        pixels = np.asarray(stored.synthetic.images)[:, cell // 2, cell % 2]
        part = images[1, 6 * cell : 6 * cell + 6]
        np.testing.assert_allclose(part, np.broadcast_to(pixels[:, None, None], part.shape))
        np.testing.assert_array_equal(
            logits[1, 6 * cell : 6 * cell + 6], stored.synthetic.label_logits
        )
    summary = evaluate._summarize(run, row, found)
    assert (summary["images_stored"], summary["images_seen"]) == (6, 24)
    assert row.made_of != artefacts.LabelledSet(stored.synthetic, stored.labels).checksum()


def test_a_partition_that_the_images_cannot_have_is_refused(tmp_path):
    run = small_run.make_run(tmp_path)
    small_run.write_sets(run, partition=3)
    with pytest.raises(UserError, match=r"cannot hold 3 x 3 pictures; delete it"):
        artefacts.read_set(run, artefacts.FINAL)
