"""Settings for a budget of time: chosen from the pictures and the machine, with reasons.

For people who have pictures and no wish to choose thirty numbers. The estimates are rough on
purpose; the plan of the run states what it costs.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class Choice:
    """One setting.

    Attributes:
      field: dotted name in the config.
      value: of the type of the field.
      reason: one clause.
    """

    field: str
    value: Any
    reason: str


class _Settings:
    """Settings while they are chosen: the user's, then the chosen ones, then the config's."""

    def __init__(self, current: Mapping[str, Any], fixed: Collection[str]):
        self._current, self._fixed = current, fixed
        self.chosen: list[Choice] = []

    def add(self, choices: Iterable[Choice]) -> None:
        """Takes the choices that are not the user's."""
        self.chosen += [choice for choice in choices if choice.field not in self._fixed]

    def is_fixed(self, field: str) -> bool:
        """Whether a budget leaves the field as it is."""
        return field in self._fixed

    def __getitem__(self, field: str) -> Any:
        found = (choice.value for choice in self.chosen if choice.field == field)
        return next(found, self._current[field])


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
    settings, method = _Settings(current, fixed), current["distill.method"]
    settings.add([*_choose_network(budget, image_shape), *_choose_data(class_counts)])
    forward = _forward_flops(image_shape, settings["net.width"], settings["net.depth"], num_classes)
    total = {stage: share * seconds * speed / forward for stage, share in _SHARES.items()}
    ipc = settings["distill.ipc"]
    networks = total["experts"] / 2 if experts and num_teachers else total["experts"]
    if experts:
        settings.add(_choose_experts(networks, budget, class_counts, experts, settings))
    if num_teachers:
        is_idle = _WITHOUT_TRAJECTORIES.get(method) is _choose_nothing
        work = networks + (total["distill"] if is_idle else 0)
        settings.add(_choose_teachers(work / num_teachers, budget, num_rows))
    if method in _WITHOUT_TRAJECTORIES:
        work = total["distill"]
        if not (experts or num_teachers):
            work += total["experts"]
        settings.add(_WITHOUT_TRAJECTORIES[method](work, class_counts, ipc))
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


def _choose_gradient_matching(work, class_counts, ipc):
    """`work` in forward passes of one image, as below; ten steps under each network."""
    num_classes = len(class_counts)
    step = num_classes * (3 * min(256, max(class_counts)) + _STEP_PASSES * ipc)
    training = 9 * 10 * 3 * num_classes * ipc
    networks = _fit(work, 10 * step + training, 3, 1001)
    return [
        Choice("gradient_matching.num_networks", networks, "fit the time for distillation"),
        Choice("gradient_matching.image_steps", 10, "as published for 10 images per class"),
        Choice("gradient_matching.training_epochs", 10, "a fifth of what is published"),
    ]


def _choose_distribution_matching(work, class_counts, ipc, pictures=1, trained=0):
    real = min(256, max(class_counts))
    of_one = len(class_counts) * (real + 3 * pictures * ipc) + 3 * trained
    iterations = _fit(work, of_one, 30, 20001)
    reason = "fit the time for distillation"
    return [Choice("distribution_matching.num_iterations", iterations, reason)]


def _choose_idm(work, class_counts, ipc):
    trained = 2 * 10 * min(256, sum(class_counts))
    return [
        *_choose_distribution_matching(work, class_counts, ipc, 4, trained),
        Choice("distribution_matching.queue_size", 20, "a fifth of what is published"),
    ]


def _choose_dream(work, class_counts, ipc):
    real, made = min(128, max(class_counts)), min(128, 4 * ipc)
    trained = min(2000, sum(class_counts))
    of_one = len(class_counts) * (3 * real + _STEP_PASSES * made) + 3.1 * trained
    iterations = _fit(work, of_one, 20, 200_000)
    networks = max(2, iterations // 100)
    reason = "fit the time for distillation"
    return [
        Choice("dream.num_networks", networks, reason),
        Choice("dream.inner_steps", min(100, iterations // networks), reason),
    ]


def _choose_kernel(work, class_counts, ipc):
    rows = len(class_counts) * ipc
    of_one = 200 + 3 * (rows + min(500, rows))  # real images, both gradients of synthetic ones
    iterations = _fit(work, of_one, 30, 4800)
    first = iterations // 6  # as by default
    reason = "fit the time for distillation"
    return [
        Choice("kernel.first.num_iterations", first, reason),
        Choice("kernel.second.num_iterations", iterations - first, reason),
    ]


def _choose_recovery(work, class_counts, ipc, crops=0):
    """`crops` of each real image are looked at before the first step."""
    left = work - crops * sum(class_counts)
    steps = _fit(left, 3 * len(class_counts) * ipc, 20, 2000)
    return [Choice("recovery.num_steps", steps, "fit the time for distillation")]


def _choose_nothing(work, class_counts, ipc):
    """For sets of real images and of crops, which are made in no iterations."""
    return []


def _fit(work, of_one, least, most):
    return max(least, min(most, int(work / of_one)))


_WITHOUT_TRAJECTORIES: dict[str, Callable[..., list[Choice]]] = {
    "dc": _choose_gradient_matching,
    "dsa": _choose_gradient_matching,
    "dm": _choose_distribution_matching,
    "idm": _choose_idm,
    "dream": _choose_dream,
    "krr": _choose_kernel,
    "frepo": _choose_kernel,
    "sre2l": _choose_recovery,
    "edc": _choose_recovery,
    "rldd": functools.partial(_choose_recovery, crops=5),
    **dict.fromkeys(
        ("rded", "random", "k_center", "herding", "graph_cut", "k_medoids"), _choose_nothing
    ),
}


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
