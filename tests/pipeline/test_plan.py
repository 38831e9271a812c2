"""What a run is refused for and tells first: breaks when what is done already counts again."""

import dataclasses
import re

import numpy as np
import pytest

from ltdd_jax import nets, pipeline
from ltdd_jax.experts import trajectory
from ltdd_jax.pipeline import distill, experts, plan
from ltdd_jax.runtime import checkpoint
from ltdd_jax.types import UserError
from tests.pipeline import small_run, tiny_config

# Parameters: 2 x 2 pixels, two layers of 128 units, 3 classes.
BACKBONE, HEAD = 4 * 128 + 128 + 128 * 128 + 128, 128 * 3 + 3
SET = 6 * (5 * 4 + 4 * 3)  # bytes of six images of 2 x 2 pixels with their labels


@pytest.fixture
def work(tmp_path):
    """Run and method with ten experts of six and of four snapshots; nothing is on disk."""
    network = nets.build("mlp", image_shape=(2, 2, 1), num_classes=3)
    fields = {"experts__num_experts": 10, "distill__ipc": 2, "net__name": "mlp"}
    run = small_run.make_run(tmp_path, network, **fields)
    return run, distill.make_method(run)


def write_experts(run, kind, group, last):
    """Snapshots of no size with the numbers of those in question."""
    values = np.zeros((len(group), 1), np.float32)
    begun = trajectory.Group(group, -1, len(group))
    with checkpoint.Writer() as writer:
        experts.open_trajectories(run, kind).append(
            writer, begun, {e: {"w": values} for e in range(last + 1)}, {"step": np.int32(last)},
            np.zeros((last, len(group))),
        )  # fmt: skip


def least_disk(run, method, stages, monkeypatch):
    """The free bytes with which a run is not refused."""
    low, high = 0, 10**9
    while low < high:
        middle = (low + high) // 2
        monkeypatch.setattr(plan.files, "free_bytes", lambda path, free=middle: free)
        try:
            plan.check_disk(run, method, stages)
            high = middle
        except UserError:
            low = middle + 1
    return low


def test_experts_on_disk_need_no_room(work, monkeypatch):
    """Breaks when a run with most of its experts is refused room for all of them."""
    run, method = work
    whole, head = 4 * (BACKBONE + HEAD), 4 * HEAD
    everything = 10 * (whole * 7 + head * 5)
    assert plan.trajectory_bytes(run, method) == everything
    assert least_disk(run, method, ("experts",), monkeypatch) == everything
    write_experts(run, "representation", range(0, 8), last=5)
    write_experts(run, "representation", range(8, 9), last=2)
    # Three snapshots and a state of the ninth; all of the tenth.
    left = whole * (4 + 7) + 10 * head * 5
    assert least_disk(run, method, ("experts",), monkeypatch) == left
    monkeypatch.setattr(plan.files, "free_bytes", lambda path: left - 1)
    with pytest.raises(UserError, match=r"writes about 0\.8 MB .*lower --config\.experts\.num_exp"):
        plan.check_disk(run, method, ("experts",))
    write_experts(run, "representation", range(9, 10), last=5)
    write_experts(run, "classifier", range(0, 10), last=3)
    assert least_disk(run, method, ("experts",), monkeypatch) == whole * 4


def test_a_finished_set_needs_no_room(work, monkeypatch):
    """Breaks when a set counts again, or when half a one does not."""
    run, method = work
    needed = SET * (2 + 2 + 6)  # the first, the last, two on the way, three states with momentum
    assert least_disk(run, method, ("distill",), monkeypatch) == needed
    small_run.write_sets(run)
    assert least_disk(run, method, ("distill",), monkeypatch) == needed
    with checkpoint.Writer() as writer:
        writer.save(
            checkpoint.step_path(run.workspace.distill, method.num_iterations),
            {"x": np.zeros(1)},
            {},
        )
    assert least_disk(run, method, ("distill",), monkeypatch) == 0
    selection = dataclasses.replace(method, num_iterations=0)
    assert least_disk(run, selection, ("distill",), monkeypatch) == 0


def test_only_the_stages_asked_for_are_counted(work, monkeypatch):
    """Breaks when a stage is refused for what another one needs, or told to lower its fields."""
    run, method = work
    of = {s: least_disk(run, method, s, monkeypatch) for s in (("experts",), ("distill",))}
    assert of["experts",] == plan.trajectory_bytes(run, method)
    assert of["distill",] == plan.set_bytes(run, method)
    assert least_disk(run, method, pipeline.STAGES, monkeypatch) == sum(of.values())
    assert least_disk(run, method, ("evaluate",), monkeypatch) == 0
    monkeypatch.setattr(plan.mesh, "free_memory", lambda: 0)
    plan.check_memory(run, method, ("evaluate",))
    of_experts, of_distill = (
        "--config.experts.representation.batch_size",
        "--config.trajectory.batch_size",
    )
    for stages, named, unnamed in (
        (("experts",), [of_experts], [of_distill]),
        (("distill",), [of_distill], [of_experts]),
        (pipeline.STAGES, [of_experts, of_distill], []),
    ):
        with pytest.raises(UserError, match=r"needs about .* lower --config\.") as refused:
            plan.check_memory(run, method, stages)
        said = str(refused.value)
        assert all(x in said for x in named) and not any(x in said for x in unnamed)
    bigger = dataclasses.replace(method, bytes=10**9)
    assert plan.peak_bytes(run, bigger) == plan.peak_bytes(run, bigger, ("distill",)) == 10**9
    assert plan.peak_bytes(run, bigger, ("experts",)) == plan.peak_bytes(run, method, ("experts",))


def test_a_set_that_is_most_of_the_memory_is_made_smaller(work, monkeypatch):
    """Breaks when enlarged pictures that fill the memory are answered with smaller batches."""
    run, method = work
    monkeypatch.setattr(plan.mesh, "free_memory", lambda: 0)
    pixels = int(np.prod(run.problem.image_shape)) * len(method.labels)
    of_images = dataclasses.replace(method, bytes=40 * pixels)
    with pytest.raises(UserError, match=r"lower --config\.distill\.ipc$"):
        plan.check_memory(run, of_images, ("distill",))
    of_pictures = dataclasses.replace(method, bytes=160 * pixels)
    with pytest.raises(UserError, match=r"lower --config\.trajectory\.batch_size"):
        plan.check_memory(run, of_pictures, ("distill",))
    several = dataclasses.replace(of_pictures, partition=2, image_copies=22)
    with pytest.raises(UserError, match=r"distill\.ipc or --config\.trajectory\.partition$"):
        plan.check_memory(run, several, ("distill",))


def test_evaluation_starts_without_room(tmp_path, monkeypatch):
    """Breaks when a set whose experts were deleted to make room cannot be evaluated."""
    monkeypatch.setattr(plan.files, "free_bytes", lambda path: 0)
    monkeypatch.setattr(plan.mesh, "free_memory", lambda: 0)
    config = tiny_config.get_config()
    config.runtime.compilation_cache = "off"
    with pytest.raises(UserError, match="is missing; run --stage=distill"):
        pipeline.run(config, str(tmp_path / "run"), "evaluate")


@pytest.mark.parametrize(
    ("student", "taught_by", "told"),
    [
        ("convnet", ("convnet",), None),
        ("convnet_bn", ("convnet_bn",), None),
        ("convnet", ("convnet", "convnet_bn"), r"student \(convnet\) and teacher \(convnet_bn\)"),
        ("convnet_bn", ("convnet",), r"student \(convnet_bn\) and teacher \(convnet\)"),
    ],
)
def test_other_norms_of_teacher_and_student_are_told(tmp_path, student, taught_by, told):
    """Breaks when a better teacher that its students cannot follow goes without a word."""
    network = nets.build(student, image_shape=(2, 2, 1), num_classes=3, width=2, depth=1)
    sizes = {
        "distill__method": "random",
        "net__name": student,
        "net__width": 2,
        "net__depth": 1,
        "teacher__nets": taught_by,
    }
    run = small_run.make_run(tmp_path, network, evaluation__blocks=("ii",), **sizes)
    text = plan.describe(run, distill.make_method(run))
    assert re.search(told, text) if told else "batch norms" not in text

    without = small_run.make_run(tmp_path, network, evaluation__blocks=("i",), **sizes)
    assert "batch norms" not in plan.describe(without, distill.make_method(without))


def test_only_the_rows_asked_for_are_announced(tmp_path):
    """Breaks when rates are said to be compared, or sets to be trained on, that are left out."""
    network = nets.build("mlp", image_shape=(2, 2, 1), num_classes=3)

    def describe(method, *kinds):
        fields = {"distill__method": method, "net__name": "mlp", "evaluation__rows": kinds}
        run = small_run.make_run(tmp_path, network, evaluation__blocks=("i", "ii"), **fields)
        return plan.describe(run, distill.make_method(run))

    said = describe("dm", "distilled")
    assert "6 epochs, rows distilled ->" in said and "block (ii)" in said
    said = describe("dm", "random_real", "distilled")
    assert "6 epochs, rows random_real, distilled, rates of real images" in said
    said = describe("random", "full_real")
    assert "), rows full_real, rates of real" in said and "(whole training set" in said
    assert "block (ii)" not in said


@pytest.mark.parametrize("blocks", [("i",), ("ii",), ("i", "ii")])
def test_only_the_blocks_asked_for_are_announced(tmp_path, blocks):
    """Breaks when trainings on the whole training set are promised that nobody will make."""
    network = nets.build("mlp", image_shape=(2, 2, 1), num_classes=3)
    fields = {"distill__method": "random", "net__name": "mlp", "teacher__nets": ("mlp",)}
    run = small_run.make_run(tmp_path, network, evaluation__blocks=blocks, **fields)
    said = plan.describe(run, distill.make_method(run))
    assert ("whole training set" in said) == ("rates of real images" in said) == ("i" in blocks)
    assert ("block (ii)" in said) == ("ii" in blocks)
    assert "evaluate: 2 networks" in said and str(run.workspace.report_text) in said
