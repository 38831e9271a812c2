"""What a run is going to do, said before it starts."""

import jax
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax.pipeline import experts as expert_stage
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import mesh
from ltdd_jax.types import UserError

_SHOWN_CLASSES = 12
# Fitted to the compiler's own figures: 452 MB at width 128 and 110 MB at width 32 for 100 images
# without augmentation; 113 MB at width 8 with it and a set of 1000, arguments included.
_MAPS_PER_STEP = 6.7
_AUGMENTED = 10  # copies of a batch's pictures while the derivative of the augmentation is taken
_COPIES = 6  # of the synthetic images: themselves, momentum, gradient, its parts and updates


def num_parameters(problem: Problem) -> int:
    """Parameters of the network."""
    shapes = jax.eval_shape(problem.network.init, jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def trajectory_bytes(config: ConfigDict, problem: Problem) -> int:
    """Disk space of all trajectories."""
    shapes = jax.eval_shape(problem.network.init, jax.random.key(0))
    classifier = sum(4 * int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["classifier"]))
    sections = config.experts
    return config.experts.num_experts * (
        4 * num_parameters(problem) * (sections.representation.num_epochs + 2)
        + classifier * (sections.classifier.num_epochs + 2)
    )


def distill_bytes(config: ConfigDict, problem: Problem) -> int:
    """Memory of one outer iteration: stored parameters of the longer unroll and one step."""
    height, width, _ = problem.image_shape
    rows = min(config.distill.batch_size, config.distill.ipc * problem.num_classes)
    maps = sum(4.0**-i for i in range(config.net.depth)) * height * width * config.net.width
    steps = max(config.distill[stage].student_steps for stage in expert_stage.STAGES)
    step_bytes = 4 * rows * _MAPS_PER_STEP * maps
    if config.augment.strategy:
        step_bytes += 4 * rows * _AUGMENTED * int(np.prod(problem.image_shape))
    if config.distill.gradient == "autodiff":
        step_bytes *= steps
    images = (
        _COPIES * 4 * config.distill.ipc * problem.num_classes * int(np.prod(problem.image_shape))
    )
    return int(step_bytes + 4 * num_parameters(problem) * steps + images)


def peak_bytes(config: ConfigDict, problem: Problem) -> int:
    """Memory of the hungrier of experts and distillation, beyond the real data."""
    per_expert = expert_stage.expert_bytes(config, problem)
    group = expert_stage.group_size(config, problem)
    height, width, _ = problem.image_shape
    batch = config.experts.representation.batch_size
    share = -(-group // mesh.make_mesh(group).size)  # of one device
    lanes = mesh.choose_lanes(batch * height * width * config.net.width) or share
    return max(min(lanes, share) * per_expert, distill_bytes(config, problem))


def check_memory(config: ConfigDict, problem: Problem) -> None:
    """Raises UserError, with advice, when the estimate exceeds the memory that is free."""
    needed, free = peak_bytes(config, problem), mesh.free_memory()
    if needed <= free:
        return
    advice = (
        "--config.distill.batch_size, --config.net.width or "
        "--config.experts.representation.batch_size"
    )
    if config.distill.gradient == "autodiff":
        advice = "--config.distill.gradient=exact instead of autodiff, or lower " + advice
    raise UserError(
        f"this run needs about {_size(needed)} of memory and {_size(free)} are free; lower {advice}"
    )


def describe(config: ConfigDict, problem: Problem, workspace: Workspace) -> str:
    """The plan as a few lines of text."""
    counts, names = problem.class_counts, problem.train.class_names
    shown = ", ".join(
        f"{name} {count}" for name, count in list(zip(names, counts, strict=True))[:_SHOWN_CLASSES]
    )
    if len(counts) > _SHOWN_CLASSES:
        shown += f", … ({len(counts)} classes, smallest {min(counts)})"
    experts, distill = config.experts, config.distill
    group = expert_stage.group_size(config, problem)
    size = "x".join(map(str, problem.image_shape))
    return "\n".join(
        [
            f"{config.name}: {config.data.source}, {sum(counts)} training images of {size} in "
            f"{len(counts)} classes (realised imbalance {max(counts) / min(counts):.4g}), "
            f"{len(problem.test.labels)} test images",
            f"  per class: {shown}",
            f"  network: {config.net.name}, {num_parameters(problem):,} parameters, on "
            f"{mesh.describe_devices()}",
            f"  experts: {experts.num_experts} x ({experts.representation.num_epochs} + "
            f"{experts.classifier.num_epochs} epochs), {group} at once -> {workspace.experts}",
            f"  distill: {distill.ipc} images per class, {distill.num_iterations} iterations x "
            f"({distill.representation.student_steps} + {distill.classifier.student_steps} "
            f"steps), {distill.gradient} gradient -> {workspace.synthetic}",
            f"  evaluate: {config.evaluation.num_seeds} networks x "
            f"{config.evaluation.num_epochs + 1} epochs -> {workspace.report_text}",
            f"  estimate: {_size(peak_bytes(config, problem))} of memory beyond the data, "
            f"{_size(trajectory_bytes(config, problem))} of disk",
        ]
    )


def _size(num_bytes):
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{max(num_bytes / 1e6, 0.1):.1f} MB"
