"""RDED: crops of real images that a teacher recognises."""

from ltdd_jax import families
from ltdd_jax.errors import UserError
from ltdd_jax.presets import Preset
from ltdd_jax.rules import POSITIVE, Field, Rule, at_least

SHARE = Rule(lambda value: 0 < value <= 1, "above 0 and at most 1")
# What is looked at, for the family and for recoveries that start from crops.
CROPS = {
    "images_per_class": Field(
        300, at_least(0), "Random real images of each class that are cropped (RDED: 300); 0 is all."
    ),
    "crops_per_image": Field(5, at_least(1), "Random crops of each (RDED, RLDD: 5)."),
    "min_area": Field(0.08, SHARE, "Smallest share of the image that a crop covers (RDED: 0.08)."),
    "max_area": Field(1.0, SHARE, "Largest share (RDED: 1)."),
}


def check_areas(section: str):
    """The check of a family whose section has `min_area` and `max_area`."""

    def check(values):
        low, high = (values[f"{section}.{name}"] for name in ("min_area", "max_area"))
        if low > high:
            raise UserError(
                f"--config.{section}.min_area={low} is above --config.{section}.max_area={high}: "
                "lower it or raise the maximum"
            )

    return check


families.register(
    "crops",
    builder="ltdd_jax.distill.confident_crops:make_method",
    settings={
        **CROPS,
        "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
    },
    # The published numbers are the same for CIFAR-10, CIFAR-100, Tiny-ImageNet and every number
    # of images per class: the defaults.
    methods={
        "rded": Preset("crops", "RDED", "Sun et al., CVPR 2024", {"crops.images_per_class": 300})
    },
    check=check_areas("crops"),
)
