"""DREAM, with the numbers of the authors' program (variant `grad`)."""

from collections.abc import Mapping
from typing import Any

from ltdd_jax import families, fields, validation
from ltdd_jax.presets import Preset
from ltdd_jax.rules import MOMENTUM, POSITIVE, Field, at_least, within

_STRATEGY = fields.FIELDS["augment"]["strategy"].rule

SETTINGS = {
    "num_networks": Field(
        2000, at_least(1), "Random networks, one after the other (published: 2000)."
    ),
    "inner_steps": Field(
        100, at_least(1), "Iterations under each network, which is trained on the way."
    ),
    "cluster_interval": Field(
        10, at_least(1), "Iterations between two choices of representative real images."
    ),
    "num_clusters": Field(
        128, at_least(1), "Representative images of each class; all where there are fewer."
    ),
    "cluster_steps": Field(50, at_least(1), "Steps of Lloyd's algorithm, at most."),
    "partition": Field(
        2, within(1, 8), "f: each image holds f x f pictures, which are enlarged when used."
    ),
    "decoded_batch_size": Field(
        128, at_least(1), "Synthetic pictures of a class per step, at most."
    ),
    "augment_always": Field(
        "color_crop_cutout",
        _STRATEGY,
        "Operations applied to real and synthetic pictures alike, all of them, joined by '_'.",
    ),
    "augment_one": Field("", _STRATEGY, "Operations of which one is drawn after those."),
    "image_lr": Field(0.005, at_least(0), "SGD, images as pixels in [0, 1] (published: 0.005)."),
    "image_momentum": Field(0.5, MOMENTUM, "SGD, images (published: 0.5)."),
    "training_images": Field(
        2000, at_least(1), "Real images the network is trained on after each iteration."
    ),
    "training_batch_size": Field(128, at_least(1), "Images per step of that training."),
    "cutmix_chance": Field(0.5, within(0, 1), "Share of its batches that are mixed by cutmix."),
    "network_lr": Field(0.01, POSITIVE, "SGD of the network."),
    "network_momentum": Field(0.9, MOMENTUM, "SGD of the network."),
    "network_weight_decay": Field(5e-4, at_least(0), "SGD of the network."),
    "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
}


def check(values: Mapping[str, Any]) -> None:
    """Combinations that need no data."""
    validation.check_partition(values, "dream")


families.register(
    "dream",
    builder="ltdd_jax.distill.dream:make_method",
    settings=SETTINGS,
    check=check,
    methods={
        "dream": Preset(
            "dream", "DREAM", "Liu et al., ICCV 2023, arXiv 2302.14416", {"dream.partition": 2}
        )
    },
)
