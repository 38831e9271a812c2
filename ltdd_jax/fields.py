"""Every setting of a run, once: default, allowed values, what it means and where it comes from.

`config.base_config` takes the defaults from this table, `validation` the ranges, and the
configuration reference its text. "Paper" is Zhao et al., "Distilling Long-tailed Datasets", CVPR
2025 (arXiv 2408.14506); its settings are those of the released program.
"""

import re
from collections.abc import Mapping
from typing import Any

from ltdd_jax import budget as budgets
from ltdd_jax import evaluation_fields, presets, teacher_fields
from ltdd_jax.family_fields import SELECTION, TRAJECTORY
from ltdd_jax.label_fields import LABELS, STUDENT
from ltdd_jax.rules import (
    FREE,
    MOMENTUM,
    POSITIVE,
    Field,
    Rule,
    at_least,
    one_of,
    within,
)

SOURCES = (
    "digits",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "tiny_imagenet",
    "imagenet",
    "folder",
    "npz",
    "arrays",
)  # also "tfds:NAME"
ROWS = evaluation_fields.ROWS
NETS = (
    "alexnet",
    "alexnet_64",
    "alexnet_bn",
    "convnet",
    "convnet_bn",
    "lenet",
    "lenet_64",
    "mlp",
    "resnet18",
    "resnet18_64",
    "resnet18_ap",
    "resnet18_bn",
    "resnet32_bn",
    "vgg11",
    "vgg11_64",
    "vgg11_bn",
    "vit",
)
AUGMENTATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
CONVOLUTIONS = ("auto", "lax", "patches", "shifts")


def _is_source(value: str) -> bool:
    return value in SOURCES or re.fullmatch(r"tfds:[\w./:-]+", value) is not None


def _is_strategy(value: str) -> bool:
    return not value or set(value.split("_")) <= set(AUGMENTATIONS)


_DATA = {
    "source": Field(
        "digits",
        Rule(_is_source, f"one of {', '.join(SOURCES)} or tfds:NAME", SOURCES),
        "Where the pictures come from: a name, or tfds:NAME for a set of TensorFlow Datasets.",
    ),
    "data_dir": Field(
        "", FREE, "Directory of TensorFlow Datasets; empty is its own, ~/tensorflow_datasets."
    ),
    "path": Field(
        "",
        FREE,
        "Directory, .zip or .tar with train/ and test/ class folders (source=folder) or with the "
        "original files (source=fashion_mnist, tiny_imagenet, imagenet), or file of arrays "
        "(source=npz).",
    ),
    "train_list": Field(
        "",
        FREE,
        "File with the training pictures that count, a line `train/CLASS/FILE LABEL` each, such as "
        "ImageNet_LT_train.txt (source=imagenet); empty for all.",
    ),
    "image_size": Field(
        0,
        Rule(lambda value: value == 0 or 4 <= value <= 1024, "0 or 4 to 1024"),
        "Side in pixels to which pictures are resized; 0 keeps their size.",
    ),
    "subset": Field(
        "long_tail",
        one_of("long_tail", "as_is"),
        "long_tail cuts the classes down to imbalance_factor; as_is keeps the data.",
    ),
    "imbalance_factor": Field(
        100.0, at_least(1), "Largest / smallest class count (paper: 10 to 200)."
    ),
    "whiten": Field(
        "auto",
        one_of("auto", "on", "off"),
        "ZCA whitening fitted on the long-tailed training set (paper: on); auto is on up to "
        "12,288 values per image (64 x 64 pixels in colour) and above that off, with normalize "
        "in its place.",
    ),
    "follow_links": Field(False, FREE, "Follow links to folders inside data.path."),
    "max_file_mb": Field(
        100, at_least(1), "Largest picture file, and largest member of a compressed archive, MB."
    ),
    "max_total_gb": Field(
        64, at_least(1), "Largest sum of the picture files, or of all members of an archive, GB."
    ),
    "memory": Field(
        "auto",
        one_of("auto", "load", "stream"),
        "load keeps the pixels in memory; stream writes them decoded into data.cache and reads "
        "what each batch needs; auto streams sets of more than 2 GiB of pixels.",
    ),
    "cache": Field(
        "",
        FREE,
        "Directory of decoded pictures that are streamed; empty is ltdd_jax/pictures in the user's "
        "cache.",
    ),
    "zca_eps": Field(
        0.1,
        POSITIVE,
        "Added to the eigenvalues of the covariance (paper: 0.1, on pixels in [0, 1]).",
    ),
    "normalize": Field(
        False,
        FREE,
        "Subtract the mean and divide by the standard deviation of each channel before the "
        "whitening (paper: for CIFAR-100-LT).",
    ),
    "mismatched_test": Field(
        False,
        FREE,
        "Normalise the test images only, as the released program does for CIFAR-10-LT.",
    ),
    "judge": Field(
        "test",
        one_of("test", "held_out"),
        "What judges: test, the test set; held_out, for choosing settings, a part of the "
        "long-tailed training images, which then trains nothing: the test set is not read, and "
        "every class counts the same in the accuracy.",
    ),
    "judge_share": Field(
        0.2,
        Rule(lambda value: 0 < value <= 0.5, "above 0 and at most 0.5"),
        "Share of the training images of each class that judges with judge=held_out, at least one "
        "image.",
    ),
}

_NET = {
    "name": Field(
        "convnet",
        one_of(*NETS),
        "Network that is distilled with and evaluated on (paper: ConvNet, instance norm).",
    ),
    "width": Field(128, at_least(1), "Channels of every convolution of the ConvNet (paper: 128)."),
    "depth": Field(
        3,
        within(1, 8),
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
        256, at_least(1), "Images per step; the last batch of an epoch may be smaller."
    ),
    "learning_rate": Field(0.01, POSITIVE, "SGD, constant (paper: 0.01)."),
    "momentum": Field(0.0, MOMENTUM, "SGD momentum, 0 is off (paper: 0)."),
    "rho": Field(0.01, at_least(0), "Radius of the GSAM perturbation; 0 leaves plain SGD."),
    "alpha": Field(
        0.3, at_least(0), "GSAM: share of the part orthogonal to the perturbed gradient."
    ),
    "adaptive": Field(True, FREE, "Scale the perturbation with the size of each weight (paper)."),
}

_EXPERTS = {
    "path": Field(
        "",
        FREE,
        "Directory of the trajectories; empty is WORKDIR/experts. Set it to share them between "
        "working directories.",
    ),
    "num_experts": Field(100, at_least(1), "Trajectories of each kind (paper: 100)."),
    "representation": {
        **_OPTIMIZER,
        "num_epochs": Field(100, at_least(1), "Epochs, each with a snapshot (paper: 100)."),
        "weight_decay": Field(5e-3, at_least(0), "On every parameter (paper: 5e-3)."),
    },
    "classifier": {
        **_OPTIMIZER,
        "num_epochs": Field(10, at_least(1), "Epochs, each with a snapshot (paper: 10)."),
        "weight_decay": Field(0.0, at_least(0), "On the classifier (paper: 0)."),
        "group_images": Field(
            4, at_least(1), "Consecutive images of one class in the class-balanced order."
        ),
        "max_norm": Field(
            False,
            FREE,
            "Project the classifier's class vectors into a norm ball after each epoch. The paper "
            "asks for it, the released program never runs it.",
        ),
        "max_norm_threshold": Field(
            0.1,
            within(0, 1),
            "Radius of that ball between the smallest (0) and largest (1) norm at the start.",
        ),
    },
}


def method_field() -> Field:
    """The field with the name of the method, for the presets that there are now."""
    return Field(
        "dam_ed",
        one_of(*presets.PRESETS),
        "Name of the method; chosen after the colon of --config=FILE:METHOD, which also sets what "
        "belongs to it.",
    )


_DISTILL = {
    "method": method_field(),
    "ipc": Field(10, at_least(1), "Synthetic images per class (paper: 10, 20, 50)."),
    "keep_steps": Field(
        500,
        at_least(0),
        "The synthetic set is kept every so many iterations; 0 keeps only the first and last.",
    ),
}

_RUNTIME = {
    "expert_group_size": Field(
        0, at_least(0), "Experts trained at once, bounds memory; 0 chooses from what there is."
    ),
    "convolution": Field("auto", one_of(*CONVOLUTIONS), "How convolutions are written."),
    "precision": Field(
        "float32",
        one_of("float32", "tf32", "bfloat16"),
        "Of products. The only field of this section that belongs to the identity of a result.",
    ),
    "image_storage": Field(
        "auto",
        one_of("auto", "uint8", "float32"),
        "Experts' training images on the device: uint8 pixels, whitened where a batch is made (a "
        "quarter of the memory), or float32 network input; auto is uint8 on accelerators.",
    ),
    "iterations_per_call": Field(
        0,
        at_least(0),
        "Outer iterations in one compiled call; 0 chooses one on a CPU, several elsewhere.",
    ),
    "log_steps": Field(50, at_least(1), "Outer iterations between log lines."),
    "tensorboard": Field(
        False,
        FREE,
        "Also write event files to tensorboard/ in the working directory: losses, accuracies, "
        "images, histograms (needs pip install 'ltdd_jax[tensorboard]').",
    ),
    "checkpoint_steps": Field(500, at_least(1), "Outer iterations between two checkpoints."),
    "checkpoint_epochs": Field(
        25, at_least(1), "Epochs of a group of experts between two saves of their trajectories."
    ),
    "checkpoint_minutes": Field(
        10.0,
        at_least(0),
        "Minutes between two checkpoints if that comes first; 0 leaves the count alone.",
    ),
    "snapshot_cache_mb": Field(
        2048, at_least(0), "Host memory for snapshots of trajectories, MiB."
    ),
    "compilation_cache": Field(
        "", FREE, "Directory of compiled programs; empty is one in the user's cache, off is none."
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
        0, within(0, 2**31 - 1), "Root of all random numbers; equal seeds give equal runs."
    ),
    "budget": Field(
        "",
        one_of("", *budgets.BUDGETS),
        "quick (about 3 minutes), standard (about 30) or thorough: sizes and numbers are chosen "
        "from the pictures and the machine, where they were not given. Empty takes all as given.",
    ),
    "data": _DATA,
    "net": _NET,
    "augment": _AUGMENT,
    "experts": _EXPERTS,
    "distill": _DISTILL,
    "trajectory": TRAJECTORY,
    "selection": SELECTION,
    "teacher": teacher_fields.make_section(NETS, "convnet", "Asked for labels and crops"),
    "observer": teacher_fields.make_section(NETS, "resnet32_bn", "Lends statistics for recovery"),
    "labels": LABELS,
    "student": STUDENT,
    "evaluation": evaluation_fields.make_section(NETS),
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
