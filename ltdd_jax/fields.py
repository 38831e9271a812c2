"""Every setting of a run, once: default, allowed values, what it means and where it comes from.

`config.base_config` takes the defaults from this table, `validation` the ranges, and the
configuration reference its text. "Paper" is Zhao et al., "Distilling Long-tailed Datasets", CVPR
2025 (arXiv 2408.14506); its settings are those of the released program.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ltdd_jax import presets

SOURCES = ("digits", "cifar10", "cifar100", "folder")  # also "tfds:NAME"
NETS = (
    "alexnet",
    "alexnet_64",
    "convnet",
    "lenet",
    "lenet_64",
    "mlp",
    "resnet18",
    "resnet18_64",
    "resnet18_ap",
    "vgg11",
    "vgg11_64",
)
AUGMENTATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
CONVOLUTIONS = ("auto", "lax", "patches", "shifts")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
      is_allowed: value of the right type -> bool.
      text: ends the sentence "it must be ...".
      choices: names to suggest from.
    """

    is_allowed: Callable[[Any], bool]
    text: str
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
      default: its type is the type of the field.
      rule: what it may be.
      text: meaning, unit and source.
    """

    default: Any
    rule: Rule
    text: str


def _at_least(low: float) -> Rule:
    return Rule(lambda value: low <= value < math.inf, f"a finite number of at least {low}")


def _within(low: float, high: float) -> Rule:
    return Rule(lambda value: low <= value <= high, f"from {low} to {high}")


def _one_of(*choices: str) -> Rule:
    return Rule(lambda value: value in choices, f"one of {', '.join(choices)}", choices)


def _is_source(value: str) -> bool:
    return value in SOURCES or re.fullmatch(r"tfds:[\w./:-]+", value) is not None


def _is_strategy(value: str) -> bool:
    return not value or set(value.split("_")) <= set(AUGMENTATIONS)


def _are_rates(value: tuple) -> bool:
    return len(value) > 0 and all(isinstance(x, float) and 0 < x < math.inf for x in value)


_POSITIVE = Rule(lambda value: 0 < value < math.inf, "a finite number above 0")
_MOMENTUM = Rule(lambda value: 0 <= value < 1, "at least 0 and below 1")
_FREE = Rule(lambda value: True, "")  # any value of the right type

_DATA = {
    "source": Field(
        "digits",
        Rule(_is_source, f"one of {', '.join(SOURCES)} or tfds:NAME", SOURCES),
        "Where the pictures come from: digits, cifar10, cifar100, folder or tfds:NAME.",
    ),
    "data_dir": Field(
        "", _FREE, "Directory of TensorFlow Datasets; empty is its own, ~/tensorflow_datasets."
    ),
    "path": Field(
        "", _FREE, "Directory or .tar with train/ and test/ class folders; for source=folder only."
    ),
    "image_size": Field(
        0,
        Rule(lambda value: value == 0 or 4 <= value <= 1024, "0 or 4 to 1024"),
        "Side in pixels to which pictures are resized; 0 keeps their size.",
    ),
    "subset": Field(
        "long_tail",
        _one_of("long_tail", "as_is"),
        "long_tail cuts the classes down to imbalance_factor; as_is keeps the data.",
    ),
    "imbalance_factor": Field(
        100.0, _at_least(1), "Largest / smallest class count (paper: 10 to 200)."
    ),
    "whiten": Field(True, _FREE, "ZCA whitening fitted on the long-tailed training set (paper)."),
    "zca_eps": Field(
        0.1,
        _POSITIVE,
        "Added to the eigenvalues of the covariance (paper: 0.1, on pixels in [0, 1]).",
    ),
    "normalize": Field(
        False,
        _FREE,
        "Subtract the mean and divide by the standard deviation of each channel before the "
        "whitening (paper: for CIFAR-100-LT).",
    ),
    "mismatched_test": Field(
        False,
        _FREE,
        "Normalise the test images only, as the released program does for CIFAR-10-LT.",
    ),
}

_NET = {
    "name": Field(
        "convnet",
        _one_of(*NETS),
        "Network that is distilled with and evaluated on (paper: ConvNet, instance norm).",
    ),
    "width": Field(128, _at_least(1), "Channels of every convolution of the ConvNet (paper: 128)."),
    "depth": Field(
        3,
        _within(1, 8),
        "Blocks of the ConvNet; each halves the side (paper: 3 at 32x32, 4 at 64x64).",
    ),
}

_AUGMENT = {
    "strategy": Field(
        "color_crop_cutout_flip_scale_rotate",
        Rule(_is_strategy, f"words of {', '.join(AUGMENTATIONS)} joined by '_', or empty"),
        "Operations of differentiable Siamese augmentation, joined by '_'; one is drawn per batch "
        "(paper: all six). Empty for no augmentation.",
    ),
}

_OPTIMIZER = {
    "batch_size": Field(
        256, _at_least(1), "Images per step; the last batch of an epoch may be smaller."
    ),
    "learning_rate": Field(0.01, _POSITIVE, "SGD, constant (paper: 0.01)."),
    "momentum": Field(0.0, _MOMENTUM, "SGD momentum, 0 is off (paper: 0)."),
    "rho": Field(0.01, _at_least(0), "Radius of the GSAM perturbation; 0 leaves plain SGD."),
    "alpha": Field(
        0.3, _at_least(0), "GSAM: share of the part orthogonal to the perturbed gradient."
    ),
    "adaptive": Field(True, _FREE, "Scale the perturbation with the size of each weight (paper)."),
}

_EXPERTS = {
    "path": Field(
        "",
        _FREE,
        "Directory of the trajectories; empty is WORKDIR/experts. Set it to share them between "
        "working directories.",
    ),
    "num_experts": Field(100, _at_least(1), "Trajectories of each kind (paper: 100)."),
    "representation": {
        **_OPTIMIZER,
        "num_epochs": Field(100, _at_least(1), "Epochs, each with a snapshot (paper: 100)."),
        "weight_decay": Field(5e-3, _at_least(0), "On every parameter (paper: 5e-3)."),
    },
    "classifier": {
        **_OPTIMIZER,
        "num_epochs": Field(10, _at_least(1), "Epochs, each with a snapshot (paper: 10)."),
        "weight_decay": Field(0.0, _at_least(0), "On the classifier (paper: 0)."),
        "group_images": Field(
            4, _at_least(1), "Consecutive images of one class in the class-balanced order."
        ),
        "max_norm": Field(
            False,
            _FREE,
            "Project the classifier's class vectors into a norm ball after each epoch. The paper "
            "asks for it, the released program never runs it.",
        ),
        "max_norm_threshold": Field(
            0.1,
            _within(0, 1),
            "Radius of that ball between the smallest (0) and largest (1) norm at the start.",
        ),
    },
}


def method_field() -> Field:
    """The field with the name of the method, for the presets that there are now."""
    return Field(
        "dam_ed",
        _one_of(*presets.PRESETS),
        "Name of the method; chosen after the colon of --config=FILE:METHOD, which also sets what "
        "belongs to it.",
    )


_DISTILL = {
    "method": method_field(),
    "ipc": Field(10, _at_least(1), "Synthetic images per class (paper: 10, 20, 50)."),
    "keep_steps": Field(
        500,
        _at_least(0),
        "The synthetic set is kept every so many iterations; 0 keeps only the first and last.",
    ),
}

_START = (
    "Start epochs are drawn from [min_start_epoch, upper), upper at most max_start_epoch. With "
    "sequential, upper grows linearly from current_start_epoch to max_start_epoch over "
    "expansion_end iterations; without, it is max_start_epoch."
)


def _phase(steps, current, maximum, weight, matched, weighted) -> dict[str, Field]:
    return {
        "student_steps": Field(
            steps, _at_least(1), "Student steps per iteration (paper: 80 CIFAR-10, 40 CIFAR-100)."
        ),
        "min_start_epoch": Field(0, _at_least(0), _START),
        "current_start_epoch": Field(current, _at_least(0), "See min_start_epoch."),
        "max_start_epoch": Field(maximum, _at_least(1), "See min_start_epoch."),
        "sequential": Field(False, _FREE, "See min_start_epoch."),
        "expansion_end": Field(1000, _at_least(1), "See min_start_epoch."),
        "loss_weight": Field(
            weight, _at_least(0), "Weight of this phase's gradient; 0 leaves the phase out."
        ),
        "matched": Field(
            matched,
            _one_of("all", "backbone", "classifier"),
            "Parameters whose distance from the expert is measured.",
        ),
        "class_weighted": Field(
            weighted,
            _FREE,
            "Weight the student's loss by the class frequencies of the real data "
            "(distribution-agnostic matching).",
        ),
    }


_TRAJECTORY = {
    "num_iterations": Field(
        10001, _at_least(1), "Outer iterations (paper: 0 to 10 000 inclusive)."
    ),
    "gradient": Field(
        "exact",
        _one_of("exact", "two_pass", "autodiff"),
        "Gradient through the student's steps: exact (stored parameters and adjoint), two_pass "
        "(the paper's constant-memory approximation) or autodiff (exact, large memory, for tests).",
    ),
    "expert_epochs": Field(2, _at_least(1), "Epochs between start and target snapshot (paper: 2)."),
    "batch_size": Field(
        500,
        _at_least(1),
        "Synthetic images per student step; more than there are means all of them (paper: 500).",
    ),
    "initial_images": Field(
        "correct",
        _one_of("correct", "real", "noise"),
        "correct: real images that an expert gets right; real: any; noise.",
    ),
    "labels": Field(
        "soft",
        _one_of("soft", "hard", "target"),
        "soft: label logits of experts, learned; hard: the class, fixed; target: the prediction "
        "of the target snapshot, renewed in each iteration (TESLA's option).",
    ),
    "label_experts": Field(
        "classifier",
        _one_of("representation", "classifier"),
        "Kind of experts that choose the first images and give their labels.",
    ),
    "initial_step_size": Field(
        0.01, _POSITIVE, "Student's learning rate at the start; it is learned (paper: 0.01)."
    ),
    "image_lr": Field(100.0, _at_least(0), "Outer SGD, images (paper: 100 or 1000)."),
    "image_momentum": Field(0.5, _MOMENTUM, "Outer SGD, images (paper: 0.5)."),
    "label_lr": Field(
        2.0, _at_least(0), "Outer SGD, label logits (paper: 2 for 10 classes, 10 for more)."
    ),
    "label_momentum": Field(0.9, _MOMENTUM, "Outer SGD, label logits (paper: 0.9)."),
    "step_size_lr": Field(
        1e-5, _at_least(0), "Outer SGD, step size (paper: 1e-5); 0 keeps it fixed."
    ),
    "step_size_momentum": Field(0.5, _MOMENTUM, "Outer SGD, step size (paper: 0.5)."),
    "image_ema": Field(
        0.0,
        _MOMENTUM,
        "Decay of the running mean of the images, which is then the result (FTD: 0.9995); 0 is "
        "off.",
    ),
    "class_weight_offset": Field(
        0.0, _at_least(0), "f in the class weights (N_c + f) / (N + f) (paper: 0)."
    ),
    "skip_threshold": Field(
        0.0,
        _at_least(0),
        "Skip updates whose matching loss is above it, DATM's rule; 0 is off (paper: off).",
    ),
    "num_shards": Field(
        1,
        _at_least(1),
        "Students that share each batch as the released program's GPUs do, each on its own path; "
        "1 is one student on the whole batch.",
    ),
    "experts_per_file": Field(
        10, _at_least(1), "Trajectories are used in shuffled blocks of this many (paper: 10)."
    ),
    "pairs_per_iteration": Field(
        1,
        _at_least(1),
        "Expert pairs per phase and iteration, their gradients averaged (paper: 1); spread over "
        "the devices.",
    ),
    "representation": _phase(80, 10, 20, 1.0, "backbone", True),
    "classifier": _phase(80, 0, 1, 0.2, "classifier", False),
}

_SELECTION = {
    "rule": Field(
        "random",
        _one_of("random", "k_center", "herding", "graph_cut"),
        "How real images are chosen in each class.",
    ),
    "labels": Field(
        "hard", _one_of("hard", "soft"), "hard: the class; soft: mean logits of classifier experts."
    ),
    "budget": Field(
        "per_class",
        _one_of("per_class", "proportional"),
        "per_class: ipc images of each class; proportional: as many in all, shared out like the "
        "training images.",
    ),
    "graph_cut_weight": Field(
        1.0, _at_least(0), "Weight of the similarity to the whole class in the graph cut."
    ),
    "step_size": Field(0.01, _POSITIVE, "Learning rate the set is evaluated with."),
}

_EVALUATION = {
    "num_seeds": Field(
        5, _at_least(1), "Fresh networks per row; accuracies are mean and std over them."
    ),
    "num_epochs": Field(
        1000,
        _at_least(1),
        "E in the protocol: epochs 0 to E inclusive, rate divided by 10 after E // 2 + 1 "
        "(paper: 1000).",
    ),
    "batch_size": Field(128, _at_least(1), "Images per step (paper: 128)."),
    "momentum": Field(0.9, _MOMENTUM, "SGD momentum (paper: 0.9)."),
    "weight_decay": Field(5e-4, _at_least(0), "On every parameter (paper: 5e-4)."),
    "baseline_rates": Field(
        (0.005, 0.01, 0.02, 0.05, 0.1),
        Rule(_are_rates, "one or more numbers above 0, such as (0.01, 0.05)"),
        "Learning rates for real images; one is chosen on held-out training images. A single rate "
        "is used as it is (paper: 0.01).",
    ),
    "held_out": Field(
        0.2,
        Rule(lambda value: 0 < value <= 0.5, "above 0 and at most 0.5"),
        "Share of the training images of each class that judges the rates, at least one image.",
    ),
    "tuning_epochs": Field(
        0, _at_least(0), "E while the rates are compared; 0 is that of the row itself."
    ),
    "full_num_epochs": Field(
        0, _at_least(0), "E for the whole training set; 0 is num_epochs. The row names it."
    ),
    "curve": Field(
        False, _FREE, "Also evaluate the sets kept every distill.keep_steps iterations."
    ),
    "keep_networks": Field(False, _FREE, "Keep the trained evaluation networks."),
}

_RUNTIME = {
    "expert_group_size": Field(
        0, _at_least(0), "Experts trained at once, bounds memory; 0 chooses from what there is."
    ),
    "convolution": Field("auto", _one_of(*CONVOLUTIONS), "How convolutions are written."),
    "precision": Field(
        "float32",
        _one_of("float32", "tf32", "bfloat16"),
        "Of products. The only field of this section that belongs to the identity of a result.",
    ),
    "image_storage": Field(
        "auto",
        _one_of("auto", "uint8", "float32"),
        "Experts' training images on the device: uint8 pixels, whitened where a batch is made (a "
        "quarter of the memory), or float32 network input; auto is uint8 on accelerators.",
    ),
    "iterations_per_call": Field(
        0,
        _at_least(0),
        "Outer iterations in one compiled call; 0 chooses one on a CPU, several elsewhere.",
    ),
    "log_steps": Field(50, _at_least(1), "Outer iterations between log lines."),
    "checkpoint_steps": Field(500, _at_least(1), "Outer iterations between two checkpoints."),
    "checkpoint_epochs": Field(
        25, _at_least(1), "Epochs of a group of experts between two saves of their trajectories."
    ),
    "checkpoint_minutes": Field(
        10.0,
        _at_least(0),
        "Minutes between two checkpoints if that comes first; 0 leaves the count alone.",
    ),
    "snapshot_cache_mb": Field(
        2048, _at_least(0), "Host memory for snapshots of trajectories, MiB."
    ),
    "compilation_cache": Field(
        "", _FREE, "Directory of compiled programs; empty is one in the user's cache, off is none."
    ),
}

Tree = Mapping[str, Any]  # name -> Field, or name -> Tree

FIELDS: dict[str, Any] = {  # of the shape of a Tree; `families` adds sections
    "name": Field(
        "base",
        Rule(
            lambda value: re.fullmatch(r"\w[\w.-]*", value) is not None,
            "a file name of letters, digits, '.', '_' and '-'",
        ),
        "Names the default workdir, runs/NAME, and the report.",
    ),
    "seed": Field(
        0, _within(0, 2**31 - 1), "Root of all random numbers; equal seeds give equal runs."
    ),
    "data": _DATA,
    "net": _NET,
    "augment": _AUGMENT,
    "experts": _EXPERTS,
    "distill": _DISTILL,
    "trajectory": _TRAJECTORY,
    "selection": _SELECTION,
    "evaluation": _EVALUATION,
    "runtime": _RUNTIME,
}


def flatten_fields(tree: Tree = FIELDS, prefix: str = "") -> dict[str, Field]:
    """{"data.source": Field, ...} in the order of the table."""
    found: dict[str, Field] = {}
    for name, node in tree.items():
        if isinstance(node, Field):
            found[f"{prefix}{name}"] = node
        else:
            found |= flatten_fields(node, f"{prefix}{name}.")
    return found


def defaults(tree: Tree = FIELDS) -> dict[str, Any]:
    """The nested dict of default values."""
    return {
        name: node.default if isinstance(node, Field) else defaults(node)
        for name, node in tree.items()
    }
