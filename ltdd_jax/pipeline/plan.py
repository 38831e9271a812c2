"""What a run is going to do and cost, said before it starts."""

import time
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import backend, losses
from ltdd_jax import config as configs
from ltdd_jax.data.sources import ImageSet
from ltdd_jax.distill import Method
from ltdd_jax.experts.trajectory import DamagedSegmentError
from ltdd_jax.nets import Network
from ltdd_jax.pipeline import artefacts, teachers, work
from ltdd_jax.pipeline import experts as expert_stage
from ltdd_jax.pipeline.run import Run
from ltdd_jax.presets import PRESETS
from ltdd_jax.report import blocks
from ltdd_jax.runtime import checkpoint, files, mesh, processes
from ltdd_jax.types import UserError

_SHOWN_CLASSES = 12
_TIMED_ABOVE = 1e13  # FLOP; a smaller run ends before an estimate is of use
_TIMED_BATCH = 128


def trajectory_bytes(run: Run, method: Method) -> int:
    """Disk space of all trajectories that the method needs."""
    sections = run.config.experts
    of_expert = sum(
        _snapshot_bytes(run, kind) * (sections[kind].num_epochs + 2) for kind in method.experts
    )
    return sections.num_experts * of_expert


def missing_trajectory_bytes(run: Run, method: Method) -> int:
    """The part of `trajectory_bytes` that is not on disk; none of a kind with a damaged part."""
    return sum(_snapshot_bytes(run, kind) * _count_missing(run, kind) for kind in method.experts)


def _snapshot_bytes(run, kind):
    sizes = run.problem.network.sizes
    is_whole = kind == "representation"
    return 4 * (sizes.num_parameters if is_whole else sizes.num_parameters - sizes.num_backbone)


def _count_missing(run, kind):
    """Snapshots that the experts of a kind have still to write, and a state for each of these."""
    sections = run.config.experts
    try:
        begun = expert_stage.open_trajectories(run, kind).groups()
    except DamagedSegmentError:  # its size is not known before it is moved aside
        return 0
    last = {expert: group.last_epoch for group in begun for expert in group.experts}
    missing = [sections[kind].num_epochs - last.get(e, -1) for e in range(sections.num_experts)]
    return sum(snapshots + 1 for snapshots in missing if snapshots)


def set_bytes(run: Run, method: Method) -> int:
    """Disk space of the synthetic sets and the checkpoints of distillation."""
    pixels = int(np.prod(run.problem.image_shape))
    one = len(method.labels) * (5 * pixels + 4 * run.problem.num_classes)
    keep = run.config.distill.keep_steps
    kept = method.num_iterations // keep if keep else 0
    return one * (2 + kept) + (3 * 2 * one if method.num_iterations else 0)


def peak_bytes(run: Run, method: Method, stages: Sequence[str] = ("experts", "distill")) -> int:
    """Memory of the hungriest of `stages`, beyond the real data; evaluation is taken to fit."""
    of_experts = 0
    if method.experts:
        group = expert_stage.group_size(run)
        share = -(-group // mesh.make_mesh(group).size)  # of one device
        batch = run.config.experts.representation.batch_size
        lanes = mesh.choose_lanes(batch * run.problem.network.sizes.largest_map) or share
        of_experts = min(lanes, share) * expert_stage.expert_bytes(run)
    of_teachers = teachers.peak_bytes(run, teachers.needed_teachers(method))
    peaks = {"experts": max(of_experts, of_teachers), "distill": method.bytes}
    return max(peaks.get(stage, 0) for stage in stages)


def check_memory(run: Run, method: Method, stages: Sequence[str]) -> None:
    """Raises UserError, with advice, when the estimate for `stages` exceeds the memory free."""
    needed, free = peak_bytes(run, method, stages), mesh.free_memory()
    if needed <= free:
        return
    section = PRESETS[run.config.distill.method].section
    fields = ["--config.net.width"]
    if "experts" in stages:
        fields += ["--config.experts.representation.batch_size"]
    if "distill" in stages and "batch_size" in run.config[section]:
        fields = [f"--config.{section}.batch_size", *fields]
    advice = f"lower {' or '.join(fields)}"
    if "distill" in stages:
        pixels = len(method.labels) * int(np.prod(run.problem.image_shape))
        images = 4 * method.image_copies * pixels
        if images > needed / 2:
            advice = "lower --config.distill.ipc"
            if method.partition > 1:
                advice += f" or --config.{section}.partition"
        elif section == "trajectory" and run.config.trajectory.gradient == "autodiff":
            advice = f"take --config.trajectory.gradient=exact instead of autodiff, or {advice}"
    asked = teachers.needed_teachers(method)
    if "experts" in stages and needed == teachers.peak_bytes(run, asked):
        fields = [
            f"--config.{kind}.batch_size or {_name_width(run.config[kind])}" for kind in asked
        ]
        advice = f"lower {' and '.join(fields)}"
    raise UserError(
        f"this run needs about {show_bytes(needed)} of memory and {show_bytes(free)} are free; "
        f"{advice}"
    )


def check_disk(run: Run, method: Method, stages: Sequence[str]) -> None:
    """Raises UserError, with the field that matters most, when the disk is too small.

    Counted is what `stages` have still to write; what evaluation writes is small.
    """
    asked = teachers.needed_teachers(method)
    of_experts = of_teachers = of_sets = 0
    if "experts" in stages:
        of_experts = missing_trajectory_bytes(run, method)
        of_teachers = teachers.disk_bytes(run, asked)
    if "distill" in stages and not _is_distilled(run, method):
        of_sets = set_bytes(run, method)
    root, of_networks = run.workspace.root, run.workspace.experts
    widths = " or ".join(f"--config.{kind}.{_name_width(run.config[kind])}" for kind in asked)
    written = (
        (root, "--config.distill.ipc", of_sets),
        (of_networks, "--config.experts.num_experts", of_experts),
        (of_networks, widths, of_teachers),
    )
    disks: dict[int, list] = {}
    for place, field, size in written:
        if files.is_local(place):
            disks.setdefault(files.identify_disk(place), []).append((size, field, place))
    for parts in disks.values():
        _require_space(parts, "--workdir" if parts[0][2] == root else "--config.experts.path")


def _name_width(section):
    """The field that says how wide networks to be asked are; of a ResNet-32 it may be another."""
    return "resnet_width" if section.resnet_width else "width"


def _require_space(parts, option):
    """`parts` are (bytes, field, directory) on one disk; `option` names another directory."""
    needed, free = sum(size for size, _, _ in parts), files.free_bytes(parts[0][2])
    if needed > free:
        _, advice, place = max(parts, key=lambda part: part[0])
        raise UserError(
            f"this run writes about {show_bytes(needed)} and {show_bytes(free)} are free in "
            f"{place}; lower {advice}, free some disk space or use another {option}"
        )


def _is_distilled(run, method):
    """Whether the set is there, and the state after the last iteration that ends a resumed run."""
    last = method.num_iterations
    done = not last or last in checkpoint.complete_steps(run.workspace.distill)
    return done and artefacts.find_set(run, artefacts.FINAL).exists()


def time_flops(run: Run) -> float:
    """FLOP per second of one network's gradient on this machine, from a timed step."""
    network = run.problem.network
    images = run.problem.train_images[: min(_TIMED_BATCH, len(run.problem.train_images))]
    labels = run.problem.train.labels[: len(images)]

    def loss(params):
        return losses.cross_entropy(network.apply(params, images), labels).mean()

    step = jax.jit(jax.grad(loss))
    params = jax.jit(network.init)(jax.random.key(0))
    jax.block_until_ready(step(params))
    start = time.monotonic()
    jax.block_until_ready(step(params))
    seconds = time.monotonic() - start
    return work.GRADIENT_FORWARDS * network.sizes.flops * len(images) / max(seconds, 1e-6)


def describe_data(
    config: ConfigDict, train: ImageSet, test: ImageSet, network: Network, workdir: str
) -> str:
    """The first lines of the plan, which need no preprocessing: data and network."""
    counts, names = [int(n) for n in train.class_counts()], train.class_names
    shown = ", ".join(
        f"{name} {count}" for name, count in list(zip(names, counts, strict=True))[:_SHOWN_CLASSES]
    )
    if len(counts) > _SHOWN_CLASSES:
        shown += f", … ({len(counts)} classes, smallest {min(counts)})"
    size = "x".join(map(str, train.images.shape[1:]))
    judges = f"{len(test.labels)} test images"
    if config.data.judge == "held_out":
        judges = f"judged on {len(test.labels)} held-out training images, the test set is not read"
    return "\n".join(
        [
            f"{config.name}: {config.data.source}, {sum(counts)} training images of {size} in "
            f"{len(counts)} classes (realised imbalance {max(counts) / min(counts):.4g}), "
            f"{judges} -> {workdir}",
            f"  per class: {shown}",
            f"  network: {config.net.name}, {network.sizes.num_parameters:,} parameters, on "
            f"{mesh.describe_devices()}",
        ]
    )


def describe(run: Run, method: Method) -> str:
    """The rest of the plan: what every stage does, where its results go, and the cost."""
    config, workspace = run.config, run.workspace
    sections = config.experts
    epochs = " + ".join(f"{sections[kind].num_epochs}" for kind in method.experts)
    trained = (
        f"{sections.num_experts} x ({epochs} epochs), {expert_stage.group_size(run)} at once -> "
        f"{workspace.experts}"
        if method.experts
        else "none"
    )
    asked = teachers.needed_teachers(method)
    needs = trajectory_bytes(run, method) + set_bytes(run, method)
    needs += teachers.disk_bytes(run, asked)
    return "\n".join(
        [
            f"  experts: {trained}",
            *_describe_teachers(run, asked),
            f"  distill: {config.distill.method}, {_describe_images(method)}, "
            f"{method.num_iterations} iterations, {method.summary} -> {workspace.synthetic}",
            f"  evaluate: {_describe_evaluation(run, method)} -> {workspace.report_text}",
            *_describe_labels(run),
            f"  estimate: {show_bytes(peak_bytes(run, method))} of memory beyond the data, "
            f"{show_bytes(needs)} of disk",
            f"  cost: {_describe_cost(run, method)}",
        ]
    )


def _describe_evaluation(run, method):
    """The networks, and what block (i) does with them if it is asked for."""
    settings = run.config.evaluation
    networks = blocks.count(settings.num_seeds, "network")
    if "i" not in settings.blocks:
        return networks
    said = f"{networks} x {settings.num_epochs + 1} epochs"
    if "full_real" in settings.rows:
        full = (settings.full_num_epochs or settings.num_epochs) + 1
        said += f" (whole training set {full})"
    if len(settings.rows) < len(configs.ROWS):
        said += f", rows {', '.join(settings.rows)}"
    if any(row.rate is None and row.block == "i" for row in work.list_baselines(run, method)):
        grid = ", ".join(f"{rate:g}" for rate in settings.baseline_rates)
        said += f", rates of real images from {grid}"
    return said


def _describe_labels(run):
    """Lines on the labels of the set and on block (ii), where they are not as usual."""
    labels, settings, wanted = run.config.labels, run.config.student, run.config.evaluation.blocks
    lines = []
    if labels.relabel != "none" or labels.calibration != "none":
        views = f" ({labels.views} of every image)" if labels.relabel == "views" else ""
        lines.append(f"  labels: {labels.relabel}{views}, calibration {labels.calibration}")
    if configs.has_taught_rows(run.config):
        rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
        alone = "" if "i" in wanted else " alone"
        lines.append(
            f"  block (ii){alone}: students x {settings.num_epochs} epochs with a teacher's labels "
            f"of every view, rate from {rates}"
        )
        lines += _describe_norms(run)
    return lines


def _describe_norms(run):
    """A line where a teacher of the students has batch norms and they have not, or the other way.

    Students of instance norms were twelve points worse with a teacher of batch norms, which was
    itself better (docs/results/index.md, "Norms of teacher and student").
    """
    own = run.problem.network.has_statistics
    members = teachers.list_members(run, teachers.TEACHER)
    others = [member.net for member in members if member.network().has_statistics != own]
    if not others:
        return []
    return [
        f"  note: of student ({run.config.net.name}) and teacher ({', '.join(others)}) only one "
        "has batch norms; students learn more from a teacher of their own norms"
    ]


def _describe_images(method):
    count, factor = len(method.labels), method.partition
    seen = f" of {factor} x {factor} pictures" if factor > 1 else ""
    return f"{count} images{seen}"


def _describe_teachers(run, asked):
    """A line for each kind that is asked."""
    lines = []
    for kind in asked:
        section = run.config[kind]
        members = teachers.list_members(run, kind)
        there = sum(map(teachers.is_there, members))
        lines.append(
            f"  {kind}: {', '.join(section.nets)}, {section.recipe}, {section.num_epochs} epochs, "
            f"{there} of {len(members)} there -> {run.workspace.teachers}"
        )
    return lines


def _describe_cost(run, method):
    flops = work.count_flops(run, method)
    rate = None
    if sum(flops.values()) > _TIMED_ABOVE and processes.is_first():
        rate = time_flops(run) * (1 if backend.is_cpu() else len(backend.devices()))
    parts = []
    for stage, value in flops.items():
        parts.append(f"{stage} {_show_flops(value)}")
        if rate is not None:
            parts[-1] += f" (about {_show_minutes(value / rate / 60)})"
    timed = "times from one timed step" if rate is not None else "a short run"
    return f"{', '.join(parts)}; {timed}, compilation apart"


def _show_flops(flops):
    for size, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops / 1e9:.2g} GFLOP"


def _show_minutes(minutes):
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{max(minutes, 0.1):.1f} min"


def show_bytes(num_bytes: float) -> str:
    """'1.5 GB' or '0.2 MB'."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{max(num_bytes / 1e6, 0.1):.1f} MB"
