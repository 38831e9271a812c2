"""How long the methods without trajectories distil, for the time that a budget gives them.

Every function takes the work in forward passes of one image, the training images of each class and
the settings so far; what is fixed there, and what a budget does not choose, is counted as it is.
"""

from collections.abc import Callable

from ltdd_jax.choices import Choice

_STEP_PASSES = 9  # a gradient through a gradient, in forward passes
_FITS = "fit the time for distillation"
SELECTIONS = ("random", "k_center", "herding", "graph_cut", "k_medoids")  # sets of real images


def _choose_gradient_matching(work, class_counts, settings):
    """Networks of ten steps each; fewer steps where the networks are fixed and too many."""
    section = "gradient_matching"
    ipc, real = settings["distill.ipc"], min(settings[f"{section}.batch_size"], max(class_counts))
    epochs = settings.pick(f"{section}.training_epochs", 10)
    step = len(class_counts) * (3 * real + _STEP_PASSES * ipc)
    training = epochs * 3 * len(class_counts) * ipc  # between two steps
    steps, reason = 10, "as published for 10 images per class"
    if settings.is_fixed(f"{section}.num_networks"):
        of_one = work / max(1, settings[f"{section}.num_networks"])
        fits = _fit(of_one + training, step + training, 1, steps)
        steps, reason = fits, reason if fits == steps else _FITS
    steps = settings.pick(f"{section}.image_steps", steps)
    networks = _fit(work, steps * step + (steps - 1) * training, 3, 1001)
    return [
        Choice(f"{section}.num_networks", networks, _FITS),
        Choice(f"{section}.image_steps", steps, reason),
        Choice(f"{section}.training_epochs", epochs, "a fifth of what is published"),
    ]


def _choose_distribution_matching(work, class_counts, settings, trained=0):
    section = "distribution_matching"
    seen = settings[f"{section}.partition"] ** 2 * settings["distill.ipc"]
    real = min(settings[f"{section}.batch_size"], max(class_counts))
    of_one = len(class_counts) * (real + 3 * seen) + 3 * trained
    return [Choice(f"{section}.num_iterations", _fit(work, of_one, 30, 20001), _FITS)]


def _choose_idm(work, class_counts, settings):
    names = ("trained_members", "training_steps", "training_batch_size")
    members, steps, batch = (settings[f"distribution_matching.{name}"] for name in names)
    trained = members * steps * min(batch, sum(class_counts))
    return [
        *_choose_distribution_matching(work, class_counts, settings, trained),
        Choice("distribution_matching.queue_size", 20, "a fifth of what is published"),
    ]


def _choose_dream(work, class_counts, settings):
    """A hundred steps under each network, or as many as fit those that are fixed."""
    real = min(settings["dream.num_clusters"], max(class_counts))
    pictures = settings["dream.partition"] ** 2
    made = min(settings["dream.decoded_batch_size"], pictures * settings["distill.ipc"])
    trained = min(settings["dream.training_images"], sum(class_counts))
    of_one = len(class_counts) * (3 * real + _STEP_PASSES * made) + 3.1 * trained
    iterations = _fit(work, of_one, 20, 200_000)
    steps = settings.pick("dream.inner_steps", 100)
    networks = settings.pick("dream.num_networks", max(2, min(2000, iterations // steps)))
    return [
        Choice("dream.num_networks", networks, _FITS),
        Choice("dream.inner_steps", max(1, min(100, iterations // networks)), _FITS),
    ]


def _choose_kernel(work, class_counts, settings):
    """A sixth of the iterations in the first part, as by default, or what a fixed part leaves."""
    rows = len(class_counts) * settings["distill.ipc"]
    of_real, of_pool = settings["kernel.batch_size"], settings["kernel.pool_batch_size"]
    of_one = of_real + 3 * (rows + min(of_pool, rows))  # both gradients of the synthetic images
    iterations = _fit(work, of_one, 30, 4800)
    first = iterations // 6
    if settings.is_fixed("kernel.second.num_iterations"):
        first = max(5, min(800, iterations - settings["kernel.second.num_iterations"]))
    first = settings.pick("kernel.first.num_iterations", first)
    second = max(25, min(4000, iterations - first))
    return [
        Choice("kernel.first.num_iterations", first, _FITS),
        Choice("kernel.second.num_iterations", second, _FITS),
    ]


def _choose_recovery(work, class_counts, settings):
    step = 3 * len(class_counts) * settings["distill.ipc"]
    return [Choice("recovery.num_steps", _fit(work, step, 20, 2000), _FITS)]


def _choose_crops_and_recovery(work, class_counts, settings):
    """Crops of each real image are looked at before the first step."""
    looked_at = settings["recovery.crops_per_image"] * sum(class_counts)
    return _choose_recovery(work - looked_at, class_counts, settings)


def choose_nothing(work, class_counts, settings):
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
    "rldd": _choose_crops_and_recovery,
    **dict.fromkeys(("rded", *SELECTIONS), choose_nothing),
}
