"""How long the methods without trajectories distil, for the time that a budget gives them."""

import functools
from collections.abc import Callable

from ltdd_jax.choices import Choice

_STEP_PASSES = 9  # a gradient through a gradient, in forward passes


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


def choose_nothing(work, class_counts, ipc):
    """For sets of real images and of crops, which are made in no iterations."""
    return []


def _fit(work, of_one, least, most):
    return max(least, min(most, int(work / of_one)))


CHOOSERS: dict[str, Callable[..., list[Choice]]] = {
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
        ("rded", "random", "k_center", "herding", "graph_cut", "k_medoids"), choose_nothing
    ),
}
