"""Kernel regression: declaration of the family `kernel`."""

from collections.abc import Mapping
from typing import Any

from ltdd_jax import families
from ltdd_jax.errors import UserError
from ltdd_jax.fields import AUGMENTATIONS
from ltdd_jax.presets import Preset
from ltdd_jax.rules import FREE, POSITIVE, Field, Rule, at_least, one_of, within


def _stage(
    num_iterations: int,
    fewest: int,
    ridge: float,
    pool: tuple[int, int],
    rates: tuple[float, float],
) -> dict[str, Field]:
    """The fields of a stage; `pool` is size and steps, `rates` those of images and labels."""
    return {
        "num_iterations": Field(
            num_iterations, at_least(fewest), "Outer iterations of this stage (ours)."
        ),
        "ridge": Field(
            ridge, POSITIVE, "Lambda, in units of the kernel's mean diagonal (FRePo: 1e-6)."
        ),
        "pool_size": Field(pool[0], at_least(1), "Networks of the pool (FRePo: 10)."),
        "pool_steps": Field(
            pool[1], at_least(1), "Steps after which a network starts anew (FRePo: 100)."
        ),
        "image_lr": Field(rates[0], at_least(0), "Adam, images; falls along a cosine (ours)."),
        "label_lr": Field(rates[1], at_least(0), "Adam, label logits; falls along a cosine."),
    }


_SETTINGS = {
    "first": _stage(800, 0, 1e-3, (10, 100), (0.01, 0.03)),
    "second": _stage(4000, 1, 3e-2, (6, 200), (0.015, 0.02)),
    "final_share": Field(0.02, within(0, 1), "Share of the rates at the end of each stage."),
    "loss": Field(
        "cross_entropy",
        one_of("cross_entropy", "squared"),
        "Of the ridge predictions; squared is the published one.",
    ),
    "real_batch": Field(
        "balanced",
        one_of("balanced", "natural"),
        "balanced: as many real images of every class; natural: as they come (published).",
    ),
    "batch_size": Field(200, at_least(1), "Real images per iteration."),
    "real_augmentation": Field(
        "crop_flip",
        Rule(
            lambda value: not value or set(value.split("_")) <= set(AUGMENTATIONS),
            f"words of {', '.join(AUGMENTATIONS)} joined by '_', or empty",
        ),
        "Operations applied to the real images, all of them to each batch; empty for none.",
    ),
    "teacher_weight": Field(
        0.5,
        within(0, 1),
        "Share of the teacher in the targets; the rest is the class. Above 0 the labels start "
        "from the teacher too.",
    ),
    "label_scale": Field(5.0, POSITIVE, "First label logit of the class, without a teacher."),
    "pool_lr": Field(2e-3, POSITIVE, "Adam, networks of the pool (ours)."),
    "pool_batch_size": Field(
        500, at_least(1), "Synthetic images per step of the pool; more than there are means all."
    ),
    "margin": Field(
        1.0,
        at_least(0),
        "Lowers a real image's own logit in the loss by margin (N_min / N_c)^(1/4), so that rare "
        "classes, whose few images are soon predicted too well, keep being learned; 0 is off.",
    ),
    "exclude_starts": Field(
        True, FREE, "Leave the real images that the synthetic ones start from out of the batches."
    ),
    "rate_power": Field(
        0.0,
        at_least(0),
        "p: the rates of a class's images and labels are those above times (N_c / N_max)^p.",
    ),
    "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
}


def check(values: Mapping[str, Any]) -> None:
    """Raises UserError where the real images would be mirrored and the synthetic ones are not."""
    light, strategy = values["kernel.real_augmentation"], values["augment.strategy"]
    if "flip" in light.split("_") and "flip" not in strategy.split("_"):
        raise UserError(
            f"--config.kernel.real_augmentation={light} mirrors the real images and "
            f"--config.augment.strategy={strategy} does not mirror the synthetic ones: leave flip "
            "out of the first or put it into the second"
        )


_REFERENCE = "Zhou et al., NeurIPS 2022, arXiv 2206.00719"

families.register(
    "kernel",
    builder="ltdd_jax.distill.kernel:make_method",
    settings=_SETTINGS,
    methods={
        "krr": Preset("kernel", "kernel regression", f"ours, after FRePo ({_REFERENCE})", {}),
        "frepo": Preset(
            "kernel",
            "FRePo's loss",
            f"{_REFERENCE}; its loss, ridge, targets and batches with our schedule and network",
            {
                "kernel.loss": "squared",
                "kernel.real_batch": "natural",
                "kernel.first.ridge": 1e-6,
                "kernel.second.ridge": 1e-6,
                "kernel.teacher_weight": 0.0,
                "kernel.margin": 0.0,
                "kernel.exclude_starts": False,
            },
        ),
    },
    check=check,
)
