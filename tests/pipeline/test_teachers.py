"""Teachers on disk: resumed, kept, found again, and handed to who asks."""

import contextlib
import dataclasses
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.pipeline import distill, labels, look, plan, settle, teachers
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import interrupt
from ltdd_jax.types import Interrupted, UserError
from tests.pipeline import small_run

FIELDS = {
    "teacher__nets": ("convnet_bn", "mlp"),
    "teacher__num_epochs": 3,
    "teacher__batch_size": 16,
    "teacher__width": 3,
    "observer__nets": ("mlp",),
    "observer__num_epochs": 2,
    "observer__recipe": "plain",
    "observer__batch_size": 16,
    "runtime__checkpoint_epochs": 1,
    "net__depth": 1,
}


class StopAfter(interrupt.StopRequest):
    """A signal arrives after so many epochs."""

    def __init__(self, epochs):
        super().__init__()
        self._left = epochs

    def agree(self, *wishes):
        self._left -= 1
        if self._left == 0:
            self.request(15)
        return super().agree(*wishes)


def make_run(workdir, epochs=-1, **fields) -> Run:
    run = small_run.make_run(workdir, **(FIELDS | fields))
    return dataclasses.replace(run, stop=StopAfter(epochs))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The teachers of FIELDS, trained in one go."""
    run = make_run(tmp_path_factory.mktemp("trained"))
    teachers.run_teachers(run, ("teacher",))
    return run


def read_again(run):
    return [t.params for t in teachers.read_teachers(make_run(run.workspace.root), "teacher")]


def test_a_stopped_training_goes_on_bit_by_bit(trained, tmp_path):
    """Breaks when state, losses or random numbers of a resumed teacher differ."""
    with pytest.raises(Interrupted):
        teachers.run_teachers(make_run(tmp_path, epochs=2), ("teacher",))
    with pytest.raises(UserError, match="has not been trained"):
        teachers.read_teachers(make_run(tmp_path), "teacher")
    run = make_run(tmp_path)
    teachers.run_teachers(run, ("teacher",))
    chex.assert_trees_all_equal(read_again(run), read_again(trained))
    lines = [
        [json.loads(line) for line in (r.workspace.root / "metrics.jsonl").read_text().splitlines()]
        for r in (run, trained)
    ]
    assert [(x["stage"], x["step"], x["loss"]) for x in lines[0]] == [
        (x["stage"], x["step"], x["loss"]) for x in lines[1]
    ]
    assert [x["step"] for x in lines[0]] == [1, 2, 3] * 2
    for member in teachers.list_members(run, "teacher"):  # only the network is kept
        assert [path.name for path in member.directory.iterdir()] == ["final"]


def test_states_left_beside_a_finished_network_are_deleted(tmp_path, monkeypatch):
    """Breaks when they stay for good after a kill, or stop a run beside one that writes there."""
    workdir, shared = tmp_path / "run", str(tmp_path / "experts")
    run = make_run(workdir, teacher__nets=("mlp",), experts__path=shared)
    (member,) = teachers.list_members(run, "teacher")
    with monkeypatch.context() as killed:
        killed.setattr(teachers.loop.Checkpoints, "delete", lambda self: None)
        teachers.run_teachers(run, ("teacher",))
    for is_shared, left in ((True, {"final", "training"}), (False, {"final"})):
        with run.workspace.hold_experts() if is_shared else contextlib.nullcontext():
            teachers.run_teachers(run, ("teacher",))
        assert {path.name for path in member.directory.iterdir()} == left


def test_teachers_at_the_root_are_held_by_the_lock_of_the_run(tmp_path):
    """Breaks when their training makes a directory of experts that nobody asked for."""
    with teachers._sole_writer(make_run(tmp_path).workspace):
        assert list(tmp_path.iterdir()) == []


def test_the_last_epoch_is_handed_on(trained):
    """Two networks of different kinds against training written out; breaks on another epoch."""
    problem = trained.problem
    found = teachers.read_teachers(trained, "teacher")
    for member, teacher in zip(teachers.list_members(trained, "teacher"), found, strict=True):
        training = teachers.make_training(member)
        key = jax.random.fold_in(
            jax.random.fold_in(jax.random.key(trained.config.seed), 7), member.place
        )  # the eighth stream
        state = jax.jit(training.init)(key)
        data = problem.train_images, problem.train.labels
        for epoch in range(3):
            state, _ = jax.jit(training.run_epoch)(key, jnp.int32(epoch), state, data)
        chex.assert_trees_all_close(teacher.params, training.finish(state), rtol=1e-4, atol=1e-6)
        logits = teacher.network.apply(teacher.params, problem.test_images)
        assert logits.shape == (6, 3)
    assert [teacher.network.has_statistics for teacher in found] == [True, False]


def test_a_method_is_given_the_kind_that_it_asks_for(trained):
    """Breaks when a task gets no teachers, or those of the other kind."""
    run = make_run(trained.workspace.root, distill__method="random")
    network = teachers.list_members(run, "teacher")[1].network()
    run = dataclasses.replace(run, problem=dataclasses.replace(run.problem, network=network))
    found = distill.make_task(run).teachers("teacher")
    chex.assert_trees_all_equal([t.params for t in found], read_again(trained))
    with pytest.raises(UserError, match="observer"):
        distill.make_task(run).teachers("observer")
    method = dataclasses.replace(distill.make_method(run), teachers=("observer", "teacher"))
    assert teachers.needed_teachers(method) == ("teacher", "observer")
    identity = distill.identify(run, method)
    assert identity["teachers"]["teacher"]["members"][0]["net"]["name"] == "convnet_bn"
    assert "teachers" not in distill.identify(run, dataclasses.replace(method, teachers=()))
    described = plan.describe(run, method)
    assert "teacher: convnet_bn, mlp, glmc, 3 epochs, 2 of 2 there" in described
    assert "observer: mlp, plain, 2 epochs, 0 of 1 there" in described


@pytest.mark.parametrize(
    ("fields", "is_same"),
    [
        ({"teacher__nets": ("convnet_bn", "mlp", "mlp")}, True),
        ({"net__name": "mlp", "evaluation__num_epochs": 9, "observer__tau": 2.0}, True),
        ({"teacher__learning_rate": 0.02}, False),
        ({"teacher__glmc__similarity": 0.5}, False),
        ({"teacher__width": 4}, False),
        ({"teacher__resnet_width": 2}, True),
        ({"seed": 1}, False),
    ],
)
def test_what_makes_a_teacher_another_one(trained, fields, is_same):
    """Breaks when a teacher is trained again for nothing, or one of other settings is taken."""
    (first, *_) = teachers.list_members(make_run(trained.workspace.root, **fields), "teacher")
    assert teachers.is_there(first) == is_same


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        ({}, (4, (64, 128, 256))),
        ({"width": 3}, (3, (3, 6, 12))),
        ({"width": 3, "resnet_width": 2}, (3, (2, 4, 8))),
        ({"resnet_width": 2}, (4, (2, 4, 8))),
    ],
)
def test_a_resnet_beside_a_convnet_has_its_own_width(tmp_path, fields, widths):
    """Breaks when one width holds for networks whose costs differ by a factor of ten."""
    fields = {f"teacher__{name}": value for name, value in fields.items()}
    fields["teacher__nets"] = ("convnet_bn", "resnet32_bn")
    run = small_run.make_run(tmp_path, net__width=4, **fields)
    convnet, resnet = teachers.list_members(run, "teacher")
    assert (convnet.options()["width"], resnet.options()["widths"]) == widths


def test_a_damaged_teacher_is_trained_again(trained, tmp_path):
    run = make_run(tmp_path, teacher__nets=("mlp",))
    teachers.run_teachers(run, ("teacher",))
    (before,) = read_again_of(run)
    (member,) = teachers.list_members(run, "teacher")
    final = pathlib.Path(member.directory) / "final" / "tree"
    files = [path for path in final.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-40])
    with pytest.raises(UserError, match="has not been trained"):
        read_again_of(run)
    teachers.run_teachers(run, ("teacher",))
    (after,) = read_again_of(run)
    chex.assert_trees_all_equal(after, before)


def read_again_of(run):
    return [teacher.params for teacher in teachers.read_teachers(run, "teacher")]


def test_accuracy_of_each_teacher_is_told(trained, capsys):
    """Breaks when the look is at another network, or averages over all of them."""
    found = look.look_at_teachers(trained, ("teacher",))
    assert list(found) == ["teacher_1", "teacher_2"]
    problem = trained.problem
    for summary, teacher in zip(
        found.values(), teachers.read_teachers(trained, "teacher"), strict=True
    ):
        logits = np.asarray(teacher.network.apply(teacher.params, problem.test_images))
        right = logits.argmax(axis=1) == problem.test.labels
        expected = [100 * right[problem.test.labels == k].mean() for k in range(3)]
        assert summary["per_class"] == expected
        assert (summary["recipe"], summary["num_epochs"]) == ("glmc", 3)
    assert look.recall_teachers(trained, ("teacher",)) == found
    said = capsys.readouterr().out
    assert "teacher 2 (mlp), accuracy in %: balanced" in said


def test_networks_that_do_not_fit_are_refused_by_name(tmp_path):
    run = make_run(tmp_path, teacher__nets=("vgg11",))
    with pytest.raises(UserError, match=r"--config\.teacher\.nets names vgg11.*2 x 2 pixels"):
        teachers.run_teachers(run, ("teacher",))


def test_numbers_that_go_wrong_name_the_rate(tmp_path):
    run = make_run(tmp_path, teacher__nets=("mlp",), teacher__learning_rate=1e30)
    with pytest.raises(UserError, match=r"--config\.teacher\.learning_rate"):
        teachers.run_teachers(run, ("teacher",))


def test_memory_and_disk_of_teachers_are_foreseen(tmp_path, monkeypatch):
    """Breaks when a teacher that does not fit is only noticed where it fails."""
    run = make_run(tmp_path, distill__method="random")
    network = teachers.list_members(run, "teacher")[1].network()
    run = dataclasses.replace(run, problem=dataclasses.replace(run.problem, network=network))
    method = dataclasses.replace(distill.make_method(run), teachers=("teacher",))
    plan.check_memory(run, method, ("experts",))
    plan.check_disk(run, method, ("experts",))
    monkeypatch.setattr(plan.mesh, "free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"lower --config\.teacher\.batch_size or width"):
        plan.check_memory(run, method, ("experts",))
    written = plan.set_bytes(run, method) + teachers.disk_bytes(run, ("teacher",))
    monkeypatch.setattr(plan.files, "free_bytes", lambda path: written - 1)
    with pytest.raises(UserError, match="free some disk space"):
        plan.check_disk(run, method, ("experts", "distill"))
    wide = dict(teacher__nets=("resnet32_bn",), teacher__resnet_width=9)
    run = dataclasses.replace(
        make_run(tmp_path, distill__method="random", **wide), problem=run.problem
    )
    with pytest.raises(UserError, match=r"lower --config\.teacher\.resnet_width, free"):
        plan.check_disk(run, method, ("experts",))
    with pytest.raises(UserError, match=r"batch_size or resnet_width"):
        plan.check_memory(run, method, ("experts",))


@pytest.mark.parametrize(
    ("blocks", "rows", "relabel", "expected"),
    [
        (("i", "ii"), ("random_real",), "none", ("teacher",)),
        (("i", "ii"), ("full_real",), "none", ()),
        (("i", "ii"), ("full_real", "initial"), "none", ()),
        (("i",), ("distilled",), "none", ()),
        (("i",), ("full_real",), "teacher", ("teacher",)),
    ],
)
def test_teachers_that_no_row_asks_are_not_trained(tmp_path, blocks, rows, relabel, expected):
    """Breaks when the whole training set alone is evaluated, or a start that a selection has not,
    and teachers are trained for it."""
    fields = {"evaluation__blocks": blocks, "evaluation__rows": rows, "labels__relabel": relabel}
    run = make_run(tmp_path, distill__method="random", net__name="mlp", **fields)
    network = teachers.list_members(run, "teacher")[1].network()
    run = dataclasses.replace(run, problem=dataclasses.replace(run.problem, network=network))
    assert labels.add_needs(run, distill.make_method(run)).teachers == expected
    assert settle.count_teachers(run.config) == len(expected) * len(run.config.teacher.nets)
