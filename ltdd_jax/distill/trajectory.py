"""The trajectory family: MTT, TESLA, FTD, DATM and the paper's DAM and ED, one engine.

All unroll a student on the synthetic set and match where it ends with an expert's later snapshot;
they differ in the experts, the phases, the labels and the gradient (`presets`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses
from ltdd_jax.data import mosaic
from ltdd_jax.distill import initialize, matching, method, sampling
from ltdd_jax.distill import state as states
from ltdd_jax.distill import step as steps
from ltdd_jax.types import SyntheticSet, UserError

PHASES = ("representation", "classifier")  # also the kinds of experts they follow
_LIMITS = {"image_max": 1e6, "step_size": 1e3}  # whitened pixels are of order 1
_REMEDY = (
    "lower --config.trajectory.image_lr, --config.trajectory.step_size_lr or "
    "--config.trajectory.initial_step_size, or a step_size_factor of its phases, or set "
    "--config.trajectory.skip_threshold"
)
# Fitted to the compiler's own figures: 452 MB at width 128 and 110 MB at width 32 for 100 images
# without augmentation; 113 MB at width 8 with it and a set of 1000, arguments included.
_MAPS_PER_STEP = 6.7
_AUGMENTED = 10  # copies of a batch's pictures while the derivative of the augmentation is taken
_ENLARGED = 4  # of every picture of an image that holds several; the compiler's figures again
_STEP_FORWARDS = 9  # passes of a student's step and its adjoint, in forward passes


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds a method of the family.

    Args:
      task: data, network and experts.
      ipc: synthetic images per class, each of which holds partition x partition pictures.
      **settings: the fields of the config's section `trajectory`; the phases are mappings.

    Raises:
      UserError: the network carries statistics, which no step of a student's SGD moves; images
        that cannot be cut up.
    """
    if task.network.has_statistics:
        raise UserError(
            "trajectories cannot be matched with a network that has batch norm, since its "
            "statistics are not moved by gradients: set --config.net.name to one without, such as "
            "convnet, or choose a method that needs no experts"
        )
    factor = settings["partition"]
    mosaic.check_sides(task.image_shape, factor, "trajectory.partition")
    phases = make_phases(settings, task.class_counts)
    soft = settings["labels"] == "soft"
    tx = _make_optimizer(settings, soft)
    decay = settings["image_ema"]
    step = steps.make_distill_step(
        task.network,
        phases,
        tx,
        task.augment,
        gradient=settings["gradient"],
        skip_threshold=settings["skip_threshold"],
        mean_decay=decay,
        target_labels=settings["labels"] == "target",
        partition=factor,
        num_pairs=settings["pairs_per_iteration"],
        map_pairs=task.map_pairs,
    )

    def result(state):
        return state.synthetic if decay == 0 else state.synthetic.replace(images=state.mean_images)

    return method.Method(
        start=lambda: make_start(task, ipc, settings),
        init=lambda key, synthetic: states.init_state(key, synthetic, tx, keep_mean=decay > 0),
        step=step,
        result=result,
        read=make_reader(task, phases, settings),
        labels=np.repeat(np.arange(task.num_classes, dtype=np.int32), ipc),
        num_iterations=settings["num_iterations"],
        experts=list_experts(settings),
        partition=factor,
        limits=_LIMITS,
        remedy=_REMEDY,
        bytes=estimate_bytes(task, phases, ipc, settings),
        image_copies=_count_copies(factor),
        flops=estimate_flops(task, phases, ipc, settings),
        summary=" + ".join(str(phase.student_steps) for phase in phases)
        + f" student steps, {settings['gradient']} gradient",
    )


def _make_optimizer(settings, learns_labels):
    names = ("image_lr", "image_momentum", "label_momentum", "step_size_lr", "step_size_momentum")
    return states.make_outer_optimizer(
        **{name: settings[name] for name in names},
        label_lr=settings["label_lr"] if learns_labels else 0.0,
        optimizer=settings["optimizer"],
        fall_steps=settings["num_iterations"] if settings["schedule"] == "cosine" else 0,
    )


def make_phases(settings: Mapping[str, Any], class_counts: Sequence[int]) -> list[steps.Phase]:
    """The phases of the settings, without one whose loss weight is 0."""
    weights = losses.class_frequencies(class_counts, settings["class_weight_offset"])
    if settings["class_weight_scale"] == "mean_one":
        weights = weights / weights.mean()
    weights = tuple(float(w) for w in np.asarray(weights))
    return [
        steps.Phase(
            name=name,
            moved="classifier" if name == "classifier" else "all",
            matched=settings[name]["matched"],
            student_steps=settings[name]["student_steps"],
            batch_size=settings["batch_size"],
            loss_weight=settings[name]["loss_weight"],
            class_weights=weights if settings[name]["class_weighted"] else None,
            num_shards=settings["num_shards"],
            step_size_factor=settings[name]["step_size_factor"],
        )
        for name in list_phases(settings)
    ]


def list_phases(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the phases of an iteration: those whose loss weight is not 0."""
    return tuple(name for name in PHASES if settings[name]["loss_weight"] > 0)


def list_experts(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds of experts that the settings ask: for pairs, first images and labels."""
    asked = set(list_phases(settings))
    if settings["labels"] == "soft" or settings["initial_images"] == "correct":
        asked.add(settings["label_experts"])
    if "classifier" in asked:
        asked.add("representation")  # on whose backbone it sits
    return tuple(kind for kind in PHASES if kind in asked)


def make_reader(task: method.Task, phases: Sequence[steps.Phase], settings: Mapping[str, Any]):
    """`read(iteration)` -> one ExpertPair per phase, the schedule of which is drawn here."""
    per_iteration, total = settings["pairs_per_iteration"], settings["num_iterations"]
    root = task.stream("schedule")
    schedule = {}
    for index, phase in enumerate(phases):
        section = settings[phase.name]
        expert_key, start_key = jax.random.split(jax.random.fold_in(root, index))
        upper = sampling.upper_start_epochs(
            total,
            min_epoch=section["min_start_epoch"],
            current_epoch=section["current_start_epoch"],
            max_epoch=section["max_start_epoch"],
            sequential=section["sequential"],
            expansion_end=section["expansion_end"],
        )
        schedule[phase.name] = (
            sampling.schedule_experts(
                expert_key, total * per_iteration, task.num_experts, settings["experts_per_file"]
            ),
            sampling.schedule_start_epochs(
                start_key, section["min_start_epoch"], np.repeat(upper, per_iteration)
            ),
        )

    def read_pair(phase, index):
        experts, starts = schedule[phase.name]
        expert, start = int(experts[index]), int(starts[index])
        target = task.snapshot(phase.name, expert, start + settings["expert_epochs"])
        return steps.ExpertPair(
            start=task.snapshot(phase.name, expert, start),
            target=matching.select_part(target, phase.matched),
        )

    def read(iteration):
        first = min(iteration, total - 1) * per_iteration
        return tuple(
            _stack([read_pair(phase, first + i) for i in range(per_iteration)]) for phase in phases
        )

    return read


def _stack(pairs):
    return jax.tree.map(lambda *x: np.stack(x), *pairs) if len(pairs) > 1 else pairs[0]


def make_start(task: method.Task, ipc: int, settings: Mapping[str, Any]) -> SyntheticSet:
    """Synthetic set before the first iteration (DATM; arXiv 2408.14506, section 4).

    Where no expert that is asked gets any image of a class right, the class is noise with uniform
    labels for LTDD (`scanned_experts` "first"). DATM ("all") asks on without end; here, our choice,
    such a class is real images with the class as their label.

    Where an image holds several pictures, these are chosen like the images of a larger set and
    made smaller, which takes noise nearer to 0; its label is the mean of their logits, which
    experts give to the whole pictures.
    """
    order_key, noise_key, expert_key = jax.random.split(task.stream("initialize"), 3)
    apply, factor = jax.jit(task.network.apply), settings["partition"]
    labels = np.repeat(np.arange(task.num_classes), ipc)
    labels = np.asarray(mosaic.repeat_labels(labels, factor))  # of the pictures, as all below

    def logits(expert, images):
        params = task.snapshot(settings["label_experts"], expert, -1)
        return method.predict_in_blocks(apply, params, images)

    rows, unknown = (
        _order_as_cells(chosen, task.num_classes, factor)
        for chosen in _choose_rows(task, factor**2 * ipc, settings, order_key, logits)
    )
    images = initialize.fill_images(noise_key, rows, task.images)
    hard = losses.hard_label_logits(labels, task.num_classes)
    if settings["labels"] != "soft":
        label_logits = hard
    elif settings["initial_images"] == "correct":
        of_experts = (logits(expert, images) for expert in range(task.num_experts))
        label_logits = initialize.average_correct_logits(of_experts, labels)
        label_logits = np.where(unknown[:, None], hard, label_logits)
    else:
        one = int(jax.random.randint(expert_key, (), 0, task.num_experts))
        label_logits = logits(one, images)
    label_logits = label_logits.reshape(factor**2, -1, task.num_classes).mean(axis=0)
    return SyntheticSet(
        images=jnp.asarray(mosaic.pack(images, factor)),
        label_logits=jnp.asarray(label_logits),
        step_size=jnp.float32(settings["initial_step_size"]),
    )


def _order_as_cells(values, num_classes, factor):
    """Class-major values of all pictures, in the order of their cells: all first ones, ...

    An image holds consecutive ones, so that those within it differ where the class has enough.
    """
    return values.reshape(num_classes, -1, factor**2).transpose(2, 0, 1).reshape(-1)


def _choose_rows(task, ipc, settings, key, logits):
    """Rows of the real images that the set begins with, and which stand for an unknown class."""
    rows_of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
    orders = initialize.permute_classes(key, rows_of_class)
    none = np.zeros(task.num_classes * ipc, bool)
    if settings["initial_images"] == "noise":
        return np.full(len(none), initialize.NOISE), none
    real = initialize.select_real(orders, ipc)
    if settings["initial_images"] == "real":
        return real, none

    def predict(expert, rows):
        return np.argmax(logits(expert, task.images[rows]), axis=1)

    scans_all = settings["scanned_experts"] == "all"
    scanned = range(task.num_experts if scans_all else 1)
    rows = initialize.select_correct(orders, ipc, [functools.partial(predict, e) for e in scanned])
    if not scans_all:
        return rows, none
    unknown = rows == initialize.NOISE
    return np.where(unknown, real, rows), unknown


def estimate_bytes(task: method.Task, phases, ipc: int, settings: Mapping[str, Any]) -> int:
    """Memory of one outer iteration: stored parameters of the longer unroll and one step."""
    sizes, pixels = task.network.sizes, int(np.prod(task.image_shape))
    rows = count_batch(ipc * task.num_classes, settings)
    num_steps = max(phase.student_steps for phase in phases)
    step_bytes = 4 * rows * (_MAPS_PER_STEP * sizes.sum_maps + _AUGMENTED * pixels)
    if settings["gradient"] == "autodiff":
        step_bytes *= num_steps
    images = _count_copies(settings["partition"]) * 4 * ipc * task.num_classes * pixels
    stored = 4 * sizes.num_parameters * num_steps * settings["num_shards"]
    return int(step_bytes + stored + images)


def estimate_flops(task: method.Task, phases, ipc: int, settings: Mapping[str, Any]) -> float:
    """Of one outer iteration: every step and its adjoint cost nine forward passes."""
    rows = count_batch(ipc * task.num_classes, settings)
    num_steps = sum(phase.student_steps for phase in phases) * settings["pairs_per_iteration"]
    return float(_STEP_FORWARDS * num_steps * rows * task.network.sizes.flops)


def count_batch(num_images: int, settings: Mapping[str, Any]) -> int:
    """Pictures in a batch of a student, of a set of so many images."""
    return min(settings["batch_size"], settings["partition"] ** 2 * num_images)


def _count_copies(factor):
    """Copies of the images of a set that an iteration holds, enlarged pictures among them."""
    return method.IMAGE_COPIES + (_ENLARGED * factor**2 if factor > 1 else 0)
