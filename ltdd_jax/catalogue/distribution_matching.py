"""Distribution matching: DM and IDM, with the numbers of the authors' programs."""

from collections.abc import Mapping
from typing import Any

from ltdd_jax import families, validation
from ltdd_jax.errors import UserError
from ltdd_jax.presets import Preset
from ltdd_jax.rules import MOMENTUM, POSITIVE, Field, at_least, one_of, within

_SECTION = "distribution_matching"

SETTINGS = {
    "num_iterations": Field(20001, at_least(1), "Outer iterations (published: 20 001)."),
    "networks": Field(
        "fresh",
        one_of("fresh", "queue"),
        "fresh: a new random network in each iteration, never trained (DM); queue: one of several "
        "that are trained now and then (IDM).",
    ),
    "batch_size": Field(
        256, at_least(1), "Real images of each class per step; fewer where there are fewer."
    ),
    "initial_images": Field("real", one_of("real", "noise"), "What the images start as."),
    "image_lr": Field(1.0, at_least(0), "SGD, images (published: 1 for DM, 0.2 for IDM)."),
    "image_momentum": Field(0.5, MOMENTUM, "SGD, images (published: 0.5)."),
    "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
    "partition": Field(
        1,
        within(1, 8),
        "f: each image holds f x f pictures, which are enlarged when they are used (IDM: 2). Only "
        "with networks=queue.",
    ),
    "ce_weight": Field(
        0.5,
        at_least(0),
        "Queue: weight of the cross-entropy, multiplied by the network's accuracy in percent.",
    ),
    "initial_networks": Field(3, at_least(1), "Queue: random networks at the start."),
    "queue_size": Field(
        100, at_least(1), "Queue: networks it holds; the oldest makes room for a new one."
    ),
    "queue_interval": Field(30, at_least(1), "Queue: iterations between two new random networks."),
    "accuracy_interval": Field(
        500,
        at_least(0),
        "Queue: iterations after which the training accuracies are counted anew; 0 never. The "
        "published program does so at its evaluations.",
    ),
    "trained_members": Field(
        2, at_least(0), "Queue: random members that are trained after each iteration."
    ),
    "training_steps": Field(10, at_least(1), "Queue: steps of each of them."),
    "training_batch_size": Field(
        256, at_least(1), "Queue: images of a step, drawn from the whole long-tailed set."
    ),
    "network_lr": Field(0.01, POSITIVE, "Queue: SGD of the networks."),
    "network_momentum": Field(0.9, MOMENTUM, "Queue: SGD of the networks."),
    "network_weight_decay": Field(5e-4, at_least(0), "Queue: SGD of the networks."),
}


def check(values: Mapping[str, Any]) -> None:
    """Combinations that need no data."""
    factor = values[f"{_SECTION}.partition"]
    if factor > 1 and values[f"{_SECTION}.networks"] == "fresh":
        raise UserError(
            f"--config.{_SECTION}.partition={factor} is read with "
            f"--config.{_SECTION}.networks=queue only: set that, or partition=1"
        )
    validation.check_partition(values, _SECTION)
    first, most = values[f"{_SECTION}.initial_networks"], values[f"{_SECTION}.queue_size"]
    if first > most:
        raise UserError(
            f"--config.{_SECTION}.initial_networks={first} do not fit into "
            f"--config.{_SECTION}.queue_size={most}: lower the first or raise the second"
        )


def _cells(**fields: Any) -> dict[str, Any]:
    return {f"{_SECTION}.{name}": value for name, value in fields.items()}


_EVALUATION = {"evaluation.batch_size": 256, "evaluation.num_epochs": 1000}
_DM = {
    (source, ipc): {**_cells(image_lr=1.0), **_EVALUATION}
    for source in ("cifar10", "cifar100")
    for ipc in (1, 10, 50)
}
# The authors' commands. With one image per class of the CIFARs networks come six times as often and
# see up to 5000 real images of a class.
_ONE_IMAGE = {"batch_size": 5000, "queue_interval": 5}
_IDM = {
    ("cifar10", 1): _cells(ce_weight=0.5, **_ONE_IMAGE),
    ("cifar10", 10): _cells(ce_weight=0.5),
    ("cifar10", 50): _cells(ce_weight=0.1),
    ("cifar100", 1): _cells(ce_weight=0.5, **_ONE_IMAGE),
    ("cifar100", 10): _cells(ce_weight=0.1, training_steps=50),
    ("cifar100", 50): _cells(ce_weight=0.1),
    ("tiny_imagenet", 1): _cells(ce_weight=0.5),
    ("tiny_imagenet", 10): _cells(ce_weight=0.5),
    ("tiny_imagenet", 50): _cells(ce_weight=0.8, training_steps=50),
}

families.register(
    _SECTION,
    builder="ltdd_jax.distill.distribution_matching:make_method",
    settings=SETTINGS,
    check=check,
    methods={
        "dm": Preset(
            _SECTION,
            "DM",
            "Zhao and Bilen, WACV 2023, arXiv 2110.04181",
            _cells(networks="fresh", partition=1, initial_images="real"),
            _DM,
        ),
        "idm": Preset(
            _SECTION,
            "IDM",
            "Zhao et al., CVPR 2023, arXiv 2307.09742",
            _cells(networks="queue", partition=2, initial_images="real", image_lr=0.2),
            {cell: {**fields, **_EVALUATION} for cell, fields in _IDM.items()},
        ),
    },
)
