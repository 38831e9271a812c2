"""Settings for a budget of time: chosen from the pictures and the machine, with reasons.

For people who have pictures and no wish to choose thirty numbers. The estimates are rough on
purpose; the plan of the run states what it costs.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ltdd_jax import method_budgets, row_kinds
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
_MIN_STUDENT_STEPS = 5
_STEP_PASSES = 9  # a student's step and its adjoint
_PHASES = ("representation", "classifier")
_OWN, _FULL = "evaluation.num_epochs", "evaluation.full_num_epochs"
_TAUGHT = "student.num_epochs"


def choose_settings(
    budget: str,
    *,
    current: Mapping[str, Any],
    fixed: Collection[str],
    class_counts: Sequence[int],
    image_shape: tuple[int, int, int],
    num_cores: int,
    experts: Sequence[str],
    phases: Sequence[str],
    num_teachers: int,
    pictures: int = 1,
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
      phases: those of an iteration with a loss weight, where the method matches trajectories.
      num_teachers: networks that the method, the labels or the evaluation ask, teachers and
        observers. Where neither these nor experts are asked the distillation has their time too.
      pictures: that students see in place of each image of the set.
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
        settings.add(_choose_teachers(work / num_teachers, budget, num_rows, settings))
    if method in method_budgets.CHOOSERS:
        work = total["distill"]
        if not (experts or num_teachers):
            work += total["experts"]
        settings.add(method_budgets.CHOOSERS[method](work, class_counts, settings))
    else:
        work, rows = total["distill"], ipc * num_classes * pictures
        settings.add(_choose_distillation(work, budget, rows, phases, settings))
    costs = _count_evaluation(ipc * num_classes, pictures, num_rows, num_teachers, settings)
    settings.add(_choose_evaluation(total["evaluate"], budget, costs, settings))
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
    of_head = max(5, _last_target("classifier", settings))
    of_head = settings.pick("experts.classifier.num_epochs", of_head)
    balanced = of_head * len(class_counts) * max(class_counts) if "classifier" in kinds else 0
    least, most = (2, 4) if budget == "quick" else (4, 20)
    epochs = {"quick": 20, "standard": 30, "thorough": 50}[budget]
    epochs = settings.pick("experts.representation.num_epochs", epochs)
    of_one = _PASSES * epochs * num_rows + balanced
    experts = max(least, min(most, int(work / of_one)))
    experts = settings.pick("experts.num_experts", experts)
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
    return [
        *chosen,
        Choice("experts.classifier.num_epochs", of_head, "enough for the classifier alone"),
        Choice("experts.classifier.batch_size", batch, "at least four steps per epoch"),
    ]


def _last_target(phase, settings):
    """Epochs that experts need for the start epochs of a phase, whose maximum is excluded."""
    last = settings[f"trajectory.{phase}.max_start_epoch"] - 1
    return last + settings["trajectory.expert_epochs"]


def _choose_teachers(work, budget, num_rows, settings):
    """`work` for each of them, in forward passes of one image."""
    chosen = [Choice("observer.nets", ("convnet_bn",), "a ResNet takes too long")]
    for kind in ("teacher", "observer"):
        batch = settings.pick(f"{kind}.batch_size", _TEACHER_BATCH)
        views = 2 if settings.pick(f"{kind}.recipe", "logit_adjusted") == "glmc" else 1
        steps = {"quick": 1000, "standard": 4000, "thorough": 20000}[budget]
        fits = int(work / (views * _TEACHER_PASSES * batch))
        reason = f"about {steps} steps" if steps <= fits else f"about {fits} steps fit the time"
        epochs = min(steps, fits) // max(1, num_rows // batch)
        epochs = max(_MIN_TEACHER_EPOCHS, min(200, epochs))
        chosen += [
            Choice(f"{kind}.num_epochs", epochs, reason),
            Choice(f"{kind}.batch_size", batch, "as published"),
            Choice(
                f"{kind}.recipe", "logit_adjusted", "half the cost of glmc, learns in few steps"
            ),
            Choice(f"{kind}.learning_rate", 0.05, "the steps are few"),
        ]
    return chosen


def _choose_distillation(work, budget, rows, phases, settings):
    """Steps of the students as usual, and iterations to fit; where those are fixed, both fit."""
    usual = {"quick": 20, "standard": 30, "thorough": 50}[budget]
    of_step = _STEP_PASSES * min(rows, settings["trajectory.batch_size"])
    of_step *= settings["trajectory.pairs_per_iteration"]
    steps, shown = usual, f"usual for a {budget} run"
    reason = f"fit {_SHARES['distill']:.0%} of the time"
    fields = [f"trajectory.{phase}.student_steps" for phase in phases]
    free = [field for field in fields if not settings.is_fixed(field)]
    if free and settings.is_fixed("trajectory.num_iterations"):
        fits = work / (max(1, settings["trajectory.num_iterations"]) * of_step)
        fits -= sum(settings[field] for field in fields if field not in free)
        steps = max(_MIN_STUDENT_STEPS, min(usual, int(fits / len(free))))
        shown = shown if steps == usual else reason
    of_one = of_step * sum(settings.pick(field, steps) for field in fields)
    iterations = max(30, min(5000, int(work / of_one)))
    first, second = (
        _choose_phase(phase, steps, shown, settings) if phase in phases else [] for phase in _PHASES
    )
    return [
        Choice("trajectory.num_iterations", iterations, reason),
        *first,
        Choice("trajectory.gradient", "exact", "the true gradient, at the same cost"),
        Choice("trajectory.image_lr", 10.0, "worked on small pictures"),
        *second,
    ]


def _choose_phase(phase, steps, shown, settings):
    """Steps and start epochs, those of the classifier only where its experts end before them."""
    of_steps = Choice(f"trajectory.{phase}.student_steps", steps, shown)
    if phase == "representation":
        return [of_steps, *_choose_starts(phase, 20, settings)]
    most, starts = settings["trajectory.classifier.max_start_epoch"], []
    if _last_target(phase, settings) > settings["experts.classifier.num_epochs"]:
        starts = _choose_starts(phase, most, settings)
    weight = Choice("trajectory.classifier.loss_weight", 1.0, "worked on small pictures")
    return [of_steps, *starts, weight]


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


def _choose_evaluation(work, budget, costs, settings):
    """Epochs of both blocks; one whose epochs are all fixed leaves the other what it does not take.

    Args:
      work: in forward passes of one image.
      budget: of `BUDGETS`.
      costs: of small sets, of the whole one and of block (ii), see `_count_evaluation`.
      settings: so far.
    """
    most = {"quick": 200, "standard": 500, "thorough": 1000}[budget]
    small, full, taught = costs
    is_alike = settings.is_fixed(_FULL) and not settings[_FULL]  # as many as on small sets
    asked = ((_OWN, small), (_OWN if is_alike else _FULL, full))
    common = [field for field, (of_one, _) in asked if of_one]
    of_common = of_taught = work / 2 if common and taught[0] else work
    if settings.is_fixed(_TAUGHT):
        of_common = work - _spend(taught, settings[_TAUGHT])
    elif all(settings.is_fixed(field) for field in common):
        own = settings[_OWN]
        of_taught = work - _spend(small, own) - _spend(full, settings[_FULL] or own)
    reason = f"fit {_SHARES['evaluate']:.0%} of the time"
    epochs = _fit_common(of_common, most, small, full, settings)
    fitted = zip((_OWN, _FULL), epochs, strict=True)
    chosen = [Choice(field, value, reason) for field, value in fitted if field in common]
    if taught[0]:
        epochs = max(_MIN_STUDENT_EPOCHS, _fit(of_taught, taught, most))
        chosen.append(Choice(_TAUGHT, epochs, reason))
    return chosen


def _fit_common(work, most, small, full, settings):
    """Epochs of block (i) on small sets and on the whole training set."""
    of_small, of_full = (0.6 * work, 0.4 * work) if small[0] and full[0] else (work, work)
    if settings.is_fixed(_FULL) and settings[_FULL]:
        of_small = work - _spend(full, settings[_FULL])
    elif settings.is_fixed(_FULL):  # as many as on small sets
        of_small, small = work, tuple(map(sum, zip(small, full, strict=True)))
    elif settings.is_fixed(_OWN):
        of_full = work - _spend(small, settings[_OWN])
    own = settings.pick(_OWN, max(50, _fit(of_small, small, most)))
    return own, min(own, max(5, _fit(of_full, full, own)))


def _count_evaluation(rows, pictures, num_rows, num_teachers, settings):
    """(Passes for each epoch, those besides) of small sets, of the whole one, and of block (ii).

    Both are 0 where nothing of the kind is asked for.
    """
    seeds, tuning = settings["evaluation.num_seeds"], settings["evaluation.tuning_epochs"]
    is_whole = "full_real" in row_kinds.list_kinds(settings, "i")
    grids = (settings["evaluation.baseline_rates"], settings["student.learning_rates"])
    common, taught = (len(rates) if len(rates) > 1 else 0 for rates in grids)
    of_view = _TEACHER_PASSES * (3 + num_teachers) / 3
    width = max(1, min(seeds, common))
    of_whole = -(-common // width) * width  # one network at every rate, the last ones padded

    def count(of_one, trainings, compared):
        """Of trainings, and of those besides that only compare rates."""
        if tuning:
            return of_one * trainings, of_one * tuning * compared
        return of_one * (trainings + compared), 0

    def count_small(of_one, block, compared):
        kinds = _find_small_sets(block, settings)
        is_random = "random_real" in kinds
        shown = (len(kinds) - is_random) * pictures + is_random  # whose images show one
        return count(of_one, shown, compared if is_random else 0)

    return (
        count_small(3 * seeds * rows, "i", common),
        count(3 * num_rows, seeds, of_whole) if is_whole else (0, 0),
        count_small(seeds * rows * of_view, "ii", taught),
    )


def _find_small_sets(block, settings):
    """Kinds of rows beside the whole training set, each counted once; some methods have more.

    Random real images are among them where another row takes its learning rate of theirs.
    """
    kinds = row_kinds.list_kinds(settings, block) - {"full_real"}
    return kinds | {"random_real"} if row_kinds.needs_rates(settings, block) else kinds


def _fit(work, cost, most):
    """Epochs that there is time for in `work`, at most `most`; `cost` is of each, and besides."""
    of_one, besides = cost
    return min(most, int((work - besides) / of_one)) if of_one else most


def _spend(cost, epochs):
    of_one, besides = cost
    return of_one * epochs + besides


def _forward_flops(image_shape, width, depth, num_classes):
    height, across, channels = image_shape
    flops = 0
    for _ in range(depth):
        flops += 2 * 9 * channels * width * height * across
        height, across, channels = height // 2, across // 2, width
    return flops + 2 * height * across * width * num_classes
