"""Settings for a budget of time: chosen from the pictures and the machine, with reasons.

For people who have pictures and no wish to choose thirty numbers. The estimates are rough on
purpose; the plan of the run states what it costs.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ltdd_jax import method_budgets
from ltdd_jax.choices import Choice, Settings

BUDGETS = {"quick": 3.0, "standard": 30.0, "thorough": 240.0}  # minutes on the machine at hand
_SHARES = {"experts": 0.3, "distill": 0.4, "evaluate": 0.3}
_COMPILATION = 0.3  # of a quick budget, at most
_CORE_FLOPS = 12e9  # per second and core of a processor, measured at width 32
_DEVICE_FLOPS = 4e12  # per second of an accelerator, float32
_PASSES = 6  # GSAM's two gradients, in forward passes
_TEACHER_BATCH = 64
_TEACHER_PASSES = 1.2  # 3 of plain training, at 30e9 per second and core, measured at width 32
_MIN_TEACHER_EPOCHS, _MIN_STUDENT_EPOCHS = 2, 20
_STEP_PASSES = 9  # a student's step and its adjoint


def choose_settings(
    budget: str,
    *,
    current: Mapping[str, Any],
    fixed: Collection[str],
    class_counts: Sequence[int],
    image_shape: tuple[int, int, int],
    num_cores: int,
    experts: Sequence[str],
    num_phases: int,
    num_teachers: int,
    num_devices: int = 0,
) -> list[Choice]:
    """Chooses network, experts, teachers, distillation and evaluation for a budget.

    Args:
      budget: of `BUDGETS`.
      current: every dotted field of the config -> its value.
      fixed: fields that stay as they are, and that the others are chosen to fit.
      class_counts: training images of each class.
      image_shape: (H, W, C) after resizing.
      num_cores: of the processor.
      experts: the kinds that the method or the labels ask, "representation" and "classifier".
      num_phases: those of an iteration, where the method matches trajectories.
      num_teachers: networks that the method, the labels or the evaluation ask, teachers and
        observers. Where neither these nor experts are asked the distillation has their time too.
      num_devices: accelerators; 0 computes on the processor.
    """
    minutes, num_rows, num_classes = BUDGETS[budget], sum(class_counts), len(class_counts)
    seconds = 60 * minutes - min(_COMPILATION * 60 * BUDGETS["quick"], 20 * minutes)
    speed = num_devices * _DEVICE_FLOPS or num_cores * _CORE_FLOPS
    settings, method = Settings(current, fixed), current["distill.method"]
    settings.add([*_choose_network(budget, image_shape), *_choose_data(class_counts)])
    forward = _forward_flops(image_shape, settings["net.width"], settings["net.depth"], num_classes)
    total = {stage: share * seconds * speed / forward for stage, share in _SHARES.items()}
    ipc = settings["distill.ipc"]
    networks = total["experts"] / 2 if experts and num_teachers else total["experts"]
    if experts:
        settings.add(_choose_experts(networks, budget, class_counts, experts, settings))
    if num_teachers:
        is_idle = method_budgets.CHOOSERS.get(method) is method_budgets.choose_nothing
        work = networks + (total["distill"] if is_idle else 0)
        settings.add(_choose_teachers(work / num_teachers, budget, num_rows))
    if method in method_budgets.CHOOSERS:
        work = total["distill"]
        if not (experts or num_teachers):
            work += total["experts"]
        settings.add(method_budgets.CHOOSERS[method](work, class_counts, ipc))
    else:
        work, rows = total["distill"], ipc * num_classes
        settings.add(_choose_distillation(work, budget, rows, num_phases, settings))
    blocks, work = settings["evaluation.blocks"], total["evaluate"]
    settings.add(
        _choose_evaluation(work, budget, ipc * num_classes, num_rows, blocks, num_teachers)
    )
    return settings.chosen


def choose_side(sides: Sequence[int], budget: str) -> Choice:
    """The size to which pictures are brought: the power of two below their median side."""
    middle = statistics.median(sides)
    largest = 32 if budget == "quick" else 64
    side = min(largest, max(8, 2 ** int(math.log2(max(middle, 8)))))
    reason = f"pictures have a median side of {middle:g}; a {budget} run takes at most {largest}"
    return Choice("data.image_size", side, reason)


def _choose_network(budget, image_shape):
    side = min(image_shape[:2])
    depth = max(1, min(4, int(math.log2(side)) - 2 if side >= 16 else 2 if side >= 8 else 1))
    width = {"quick": 32, "standard": 64, "thorough": 128}[budget]
    return [
        Choice("net.depth", depth, f"a side of {side} halves to {side // 2**depth}"),
        Choice("net.width", width, f"usual for a {budget} run"),
    ]


def _choose_data(class_counts):
    ipc = max(1, min(10, int(statistics.median(class_counts)) // 5))
    return [Choice("distill.ipc", ipc, "a fifth of the median class, at most 10")]


def _choose_experts(work, budget, class_counts, kinds, settings):
    """`work` in forward passes of one image."""
    num_rows = sum(class_counts)
    balanced = 5 * len(class_counts) * max(class_counts) if "classifier" in kinds else 0
    least, most = (2, 4) if budget == "quick" else (4, 20)
    epochs = {"quick": 20, "standard": 30, "thorough": 50}[budget]
    if settings.is_fixed("experts.representation.num_epochs"):
        epochs = settings["experts.representation.num_epochs"]
    of_one = _PASSES * epochs * num_rows + balanced
    experts = max(least, min(most, int(work / of_one)))
    fits = int((work / experts - balanced) / (_PASSES * num_rows))
    needed = 6
    if settings.is_fixed("trajectory.representation.max_start_epoch"):
        needed = max(needed, _last_target("representation", settings))
    epochs = max(needed, min(epochs, fits))
    batch = max(1, min(256, num_rows // 4))
    reason = f"fit {_SHARES['experts']:.0%} of the time"
    chosen = [
        Choice("experts.num_experts", experts, reason),
        Choice("experts.representation.num_epochs", epochs, reason),
        Choice("experts.representation.batch_size", batch, "at least four steps per epoch"),
    ]
    if "classifier" not in kinds:
        return chosen
    least = max(5, _last_target("classifier", settings))
    return [
        *chosen,
        Choice("experts.classifier.num_epochs", least, "enough for the classifier alone"),
        Choice("experts.classifier.batch_size", batch, "at least four steps per epoch"),
    ]


def _last_target(phase, settings):
    """Epochs that experts need for the start epochs of a phase, whose maximum is excluded."""
    last = settings[f"trajectory.{phase}.max_start_epoch"] - 1
    return last + settings["trajectory.expert_epochs"]


def _choose_teachers(work, budget, num_rows):
    """`work` for each of them, in forward passes of one image."""
    steps = {"quick": 1000, "standard": 4000, "thorough": 20000}[budget]
    fits = int(work / (_TEACHER_PASSES * _TEACHER_BATCH))
    reason = f"about {steps} steps" if steps <= fits else f"about {fits} steps fit the time"
    epochs = min(steps, fits) // max(1, num_rows // _TEACHER_BATCH)
    epochs = max(_MIN_TEACHER_EPOCHS, min(200, epochs))
    chosen = [Choice("observer.nets", ("convnet_bn",), "a ResNet takes too long")]
    for kind in ("teacher", "observer"):
        chosen += [
            Choice(f"{kind}.num_epochs", epochs, reason),
            Choice(f"{kind}.batch_size", _TEACHER_BATCH, "as published"),
            Choice(
                f"{kind}.recipe", "logit_adjusted", "half the cost of glmc, learns in few steps"
            ),
            Choice(f"{kind}.learning_rate", 0.05, "the steps are few"),
        ]
    return chosen


def _choose_distillation(work, budget, rows, num_phases, settings):
    steps = {"quick": 20, "standard": 30, "thorough": 50}[budget]
    of_one = num_phases * steps * min(rows, 500) * _STEP_PASSES
    iterations = max(30, min(5000, int(work / of_one)))
    reason = f"fit {_SHARES['distill']:.0%} of the time"
    chosen = [
        Choice("trajectory.num_iterations", iterations, reason),
        Choice("trajectory.representation.student_steps", steps, f"usual for a {budget} run"),
        *_choose_starts("representation", 20, settings),
        Choice("trajectory.gradient", "exact", "the true gradient, at the same cost"),
        Choice("trajectory.image_lr", 10.0, "worked on small pictures"),
    ]
    if num_phases == 1:
        return chosen
    most, starts = settings["trajectory.classifier.max_start_epoch"], []
    if _last_target("classifier", settings) > settings["experts.classifier.num_epochs"]:
        starts = _choose_starts("classifier", most, settings)
    return [
        *chosen,
        Choice("trajectory.classifier.student_steps", steps, f"usual for a {budget} run"),
        *starts,
        Choice("trajectory.classifier.loss_weight", 1.0, "worked on small pictures"),
    ]


def _choose_starts(phase, most, settings):
    """The first epochs of the experts, as many as leave a target after them."""
    section = f"trajectory.{phase}"
    epochs = settings[f"experts.{phase}.num_epochs"] - settings["trajectory.expert_epochs"]
    last = max(1, min(most, epochs))
    if settings.is_fixed(f"{section}.min_start_epoch"):
        last = max(last, settings[f"{section}.min_start_epoch"] + 1)
    if settings.is_fixed(f"{section}.max_start_epoch"):
        last = settings[f"{section}.max_start_epoch"]
    return [
        Choice(f"{section}.min_start_epoch", 0, "the experts' first epochs"),
        Choice(f"{section}.max_start_epoch", last, "the experts' first epochs"),
        Choice(f"{section}.current_start_epoch", last, "the whole range at once"),
    ]


def _choose_evaluation(work, budget, rows, num_rows, blocks, num_teachers):
    epochs, seeds = {"quick": 200, "standard": 500, "thorough": 1000}[budget], 5
    work, reason = work / len(blocks), f"fit {_SHARES['evaluate']:.0%} of the time"
    chosen = []
    if "i" in blocks:
        small = 3 * seeds * 8  # eight trainings on small sets, rates included
        own = max(50, min(epochs, int(0.6 * work / (small * rows))))
        full = max(5, min(own, int(0.4 * work / (2 * 3 * seeds * num_rows))))
        chosen += [
            Choice("evaluation.num_epochs", own, reason),
            Choice("evaluation.full_num_epochs", full, reason),
        ]
    if "ii" in blocks:  # three sets, and the teachers are asked about every view
        one = 3 * seeds * rows * _TEACHER_PASSES * (3 + num_teachers) / 3
        taught = max(_MIN_STUDENT_EPOCHS, min(epochs, int(work / one)))
        chosen.append(Choice("student.num_epochs", taught, reason))
    return chosen


def _forward_flops(image_shape, width, depth, num_classes):
    height, across, channels = image_shape
    flops = 0
    for _ in range(depth):
        flops += 2 * 9 * channels * width * height * across
        height, across, channels = height // 2, across // 2, width
    return flops + 2 * height * across * width * num_classes
