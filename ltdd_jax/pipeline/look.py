"""A look at experts and teachers: what they get right, before anything is built on them."""

from typing import Any

import jax
import numpy as np

from ltdd_jax.distill.method import predict_in_blocks
from ltdd_jax.evaluate import metrics
from ltdd_jax.pipeline import experts, teachers
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import files, processes


def look_at_experts(run: Run, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Accuracy on the test images of the last snapshots, mean over the experts, by kind.

    It goes to the metrics and the terminal; a warning tells when the classifier experts are worse
    than the representation experts where images are rarest.
    """
    found = {kind: _look(run, kind) for kind in kinds}
    for kind, summary in found.items():
        groups = [name for name in ("balanced", *metrics.GROUPS) if name in summary]
        shown = ", ".join(f"{name} {summary[name]:.1f}" for name in groups)
        processes.say(f"{kind} experts, accuracy in %: {shown}")
    if {"representation", "classifier"} <= found.keys():
        _warn_of_failed_stage(run, found["representation"], found["classifier"])
    return found


def recall_experts(run: Run, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What `look_at_experts` found before, for the kinds that were looked at."""
    found = {kind: _read(run, kind) for kind in kinds}
    return {kind: _summarize(run, kind, known) for kind, known in found.items() if known}


def _read(run, kind):
    path = run.workspace.accuracy / f"{experts.name_directory(run, kind)}.json"
    found = processes.first_then_rest(lambda: run.workspace.read_or_set_aside(path))
    same = found is not None and found["num_experts"] == run.config.experts.num_experts
    return found if same else None


def _look(run, kind):
    num_experts = run.config.experts.num_experts
    found = _read(run, kind)
    if found is None:
        problem, apply = run.problem, jax.jit(run.problem.network.apply)
        snapshots = experts.Snapshots(run)
        predictions = [
            predict_in_blocks(apply, snapshots.read(kind, e, -1), problem.test_images)
            for e in range(num_experts)
        ]
        accuracies = metrics.per_class_accuracy(
            np.stack(predictions).argmax(-1), problem.test.labels, problem.num_classes
        )
        found = {"num_experts": num_experts, "per_expert_per_class": accuracies.tolist()}
        path = run.workspace.accuracy / f"{experts.name_directory(run, kind)}.json"
        files.write_sealed(path, found)
    summary = _summarize(run, kind, found)
    epochs = summary["num_epochs"]
    numbers = {k: summary[k] for k in ("balanced", *metrics.GROUPS) if k in summary}
    per_class = {f"class_{k}": value for k, value in enumerate(summary["per_class"])}
    run.workspace.expert_metrics.replace(f"{kind}_accuracy", [(epochs, {**numbers, **per_class})])
    return summary


def _summarize(run, kind, found):
    summary = metrics.summarize(
        np.asarray(found["per_expert_per_class"]),
        run.problem.test_counts,
        np.asarray(run.problem.class_counts),
    )
    return summary | {"num_epochs": run.config.experts[kind].num_epochs}


def look_at_teachers(run: Run, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Accuracy on the test images of each trained network of `kinds`, by name; it is said."""
    for kind in kinds:
        for member in teachers.list_members(run, kind):
            if _read_teacher(member) is None:
                _measure_teacher(member)
    found = recall_teachers(run, kinds)
    for summary in found.values():
        groups = [name for name in ("balanced", *metrics.GROUPS) if name in summary]
        shown = ", ".join(f"{name} {summary[name]:.1f}" for name in groups)
        processes.say(f"{summary['title']} ({summary['net']}), accuracy in %: {shown}")
    return found


def recall_teachers(run: Run, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What `look_at_teachers` found before, for the networks that were looked at."""
    members = [m for kind in kinds for m in teachers.list_members(run, kind)]
    found = [(member, _read_teacher(member)) for member in members]
    return {
        member.title.replace(" ", "_"): _summarize_teacher(member, known)
        for member, known in found
        if known
    }


def _teacher_path(member):
    return member.run.workspace.accuracy / f"{member.directory.name}.json"


def _read_teacher(member):
    workspace = member.run.workspace
    return processes.first_then_rest(lambda: workspace.read_or_set_aside(_teacher_path(member)))


def _measure_teacher(member):
    problem = member.run.problem
    logits = predict_in_blocks(
        jax.jit(member.network().apply), teachers.read_params(member), problem.test_images
    )
    accuracies = metrics.per_class_accuracy(
        logits.argmax(-1)[None], problem.test.labels, problem.num_classes
    )
    files.write_sealed(_teacher_path(member), {"per_class": accuracies.tolist()})


def _summarize_teacher(member, found):
    problem = member.run.problem
    summary = metrics.summarize(
        np.asarray(found["per_class"]),
        problem.test_counts,
        np.asarray(problem.class_counts),
    )
    return summary | {
        "title": member.title,
        "net": member.net,
        "recipe": member.section.recipe,
        "num_epochs": member.section.num_epochs,
    }


def _warn_of_failed_stage(run, before, after):
    """Class-balanced batches should help the rare classes, or the stage has failed."""
    rare = next(name for name in reversed(metrics.GROUPS) if name in before)
    if after[rare] < before[rare]:
        run.workspace.warn(
            f"classifier experts get {after[rare]:.1f} % of the {rare}-shot classes right, fewer "
            f"than the representation experts they start from ({before[rare]:.1f} %); look at "
            "--config.experts.classifier.num_epochs and learning_rate before going on"
        )
