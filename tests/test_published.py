"""Every published constant of every cell, typed from the papers' settings and not from the package.

Breaks when a setting of a published cell changes, and when a new field of the config is not said
here to be published or not.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from ltdd_jax import records
from ltdd_jax.data import sources

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"

# The same in all cells of all data sets, where a data set says nothing else.
COMMON = {
    "data.subset": "long_tail",
    "data.image_size": 0,
    "data.whiten": "on",
    "data.zca_eps": 0.1,
    "net.name": "convnet",
    "net.width": 128,
    "net.depth": 3,
    "augment.strategy": "color_crop_cutout_flip_scale_rotate",
    # Experts of both stages: GSAM around plain SGD.
    "experts.num_experts": 100,
    "experts.representation.num_epochs": 100,
    "experts.representation.batch_size": 256,
    "experts.representation.learning_rate": 0.01,
    "experts.representation.momentum": 0.0,
    "experts.representation.weight_decay": 0.005,
    "experts.representation.rho": 0.01,
    "experts.representation.alpha": 0.3,
    "experts.representation.adaptive": True,
    "experts.classifier.num_epochs": 10,
    "experts.classifier.batch_size": 256,
    "experts.classifier.learning_rate": 0.01,
    "experts.classifier.momentum": 0.0,
    "experts.classifier.weight_decay": 0.0,
    "experts.classifier.rho": 0.01,
    "experts.classifier.alpha": 0.3,
    "experts.classifier.adaptive": True,
    "experts.classifier.group_images": 4,
    "experts.classifier.max_norm": False,  # the flag is set in the files and never read
    "experts.classifier.max_norm_threshold": 0.1,
    # Distillation.
    "trajectory.gradient": "two_pass",
    "trajectory.num_iterations": 10001,  # 0 to 10 000 inclusive
    "trajectory.expert_epochs": 2,
    "trajectory.initial_step_size": 0.01,
    "trajectory.image_momentum": 0.5,
    "trajectory.label_momentum": 0.9,
    "trajectory.step_size_lr": 1e-5,
    "trajectory.step_size_momentum": 0.5,
    "trajectory.class_weight_offset": 0.0,
    "trajectory.class_weight_scale": "frequency",
    "trajectory.partition": 1,
    "trajectory.scanned_experts": "first",
    "trajectory.skip_threshold": 0.0,
    "trajectory.experts_per_file": 10,
    "trajectory.optimizer": "sgd",
    "trajectory.schedule": "constant",
    "trajectory.pairs_per_iteration": 1,
    "trajectory.representation.step_size_factor": 1.0,
    "trajectory.classifier.step_size_factor": 1.0,
    "trajectory.classifier.min_start_epoch": 0,
    "trajectory.classifier.max_start_epoch": 1,
    # The paper's method.
    "distill.method": "dam_ed",
    "trajectory.labels": "soft",
    "trajectory.label_experts": "classifier",
    "trajectory.representation.class_weighted": True,
    "trajectory.representation.matched": "backbone",
    "trajectory.classifier.class_weighted": False,
    "trajectory.classifier.matched": "classifier",
    "trajectory.image_ema": 0.0,  # the decay in the files is dead
    # Evaluation.
    "evaluation.num_epochs": 1000,  # 0 to 1000 inclusive
    "evaluation.batch_size": 128,
    "evaluation.momentum": 0.9,
    "evaluation.weight_decay": 5e-4,
    "runtime.precision": "float32",
}

CIFAR10 = {
    "data.source": "cifar10",
    "data.normalize": False,
    "trajectory.batch_size": 500,
    "trajectory.initial_images": "correct",
    "trajectory.label_lr": 2.0,
}
CIFAR100 = {
    "data.source": "cifar100",
    "data.normalize": True,
    "trajectory.batch_size": 1000,
    "trajectory.initial_images": "real",
    "trajectory.label_lr": 10.0,
    "trajectory.image_lr": 1000.0,
    "trajectory.representation.sequential": False,
    "trajectory.classifier.sequential": False,
    "trajectory.representation.student_steps": 40,
    "trajectory.representation.loss_weight": 1.0,
    "trajectory.classifier.student_steps": 20,
    "trajectory.classifier.loss_weight": 0.1,
}

TINY_IMAGENET = {
    "data.source": "tiny_imagenet",
    "data.normalize": False,
    "net.depth": 4,
    "trajectory.initial_images": "real",
    "trajectory.label_lr": 10.0,
    "trajectory.image_lr": 100.0,
    "trajectory.representation.sequential": False,
    "trajectory.classifier.sequential": False,
    "trajectory.representation.loss_weight": 1.0,
    "trajectory.classifier.loss_weight": 0.1,
}

# N1 N2 | start 1: min cur max | expand, 0 for no sequential generation | start 2: cur | image lr
# | lambda 1, lambda 2
CIFAR10_CELLS = """
if10_ipc10    80 80   0 10 20   1000   0    100   1    0.2
if10_ipc20    80 80   0 20 40      0   0    100   1    0.2
if10_ipc50    80 80   0 20 40      0   0   1000   1    0.2
if50_ipc10    80 80   0 10 20      0   1    100   1    0.5
if50_ipc20    80 80   0 10 20   2000   1    100   0.5  1
if50_ipc50    80 80   0 20 40   2000   0    100   0.5  1
if100_ipc10   80 80   0 10 20      0   1    100   0.5  1
if100_ipc20   80 80   0 10 20   2000   1    100   0.5  1
if100_ipc50   80 60   0 20 40      0   0   1000   1    0.5
if200_ipc10   80 80   0 10 20      0   0    100   0.1  1
if200_ipc20   80 80   0 20 40      0   0   1000   0.1  1
if200_ipc50   80 80   0 20 40      0   0   1000   0.1  1
"""
# start 1: min max
CIFAR100_CELLS = """
if10_ipc10   30 50
if10_ipc20   20 70
if10_ipc50   20 70
if20_ipc10   20 70
if20_ipc20   20 70
if20_ipc50   20 70
"""

# N1 N2 | start 1: min max | batch | rate of the step size | iterations, 0 to this one inclusive
TINY_IMAGENET_CELLS = """
if10_ipc10   25 25   10 50    500   1e-4   10000
if10_ipc20   20 20   10 50    500   1e-4   10000
if10_ipc50   10 10   40 70   1000   1e-5   10000
if20_ipc10   25 25   10 50    500   1e-4   10000
if20_ipc20   20 20   10 50    500   1e-4   10000
if20_ipc50   10 10   40 70   1000   1e-5    1500
"""

# Where we leave the released program on purpose, and why.
OURS = {
    "data.mismatched_test": False,  # its test images of CIFAR-10-LT are normalised, training is not
    "evaluation.num_seeds": 5,  # one network, and the best of many looks at the test set
    "evaluation.full_num_epochs": 0,  # real images are trained as long as the distilled ones
    "seed": 0,  # the clock
    "trajectory.num_shards": 1,  # the released settings list several GPUs, see docs/shards.md
    "evaluation.baseline_rates": (0.005, 0.01, 0.02, 0.05, 0.1),  # 0.01 for all real images
    "evaluation.held_out": 0.2,
    "evaluation.tuning_epochs": 0,
    "data.judge": "test",
    "data.judge_share": 0.2,  # without effect: the test set judges
    "evaluation.curve": False,  # its evaluations on the way choose the best of the test set
    "distill.keep_steps": 500,
    "budget": "",
    # Labels and evaluation of the paper; the rest is ours.
    "labels.relabel": "none",
    "labels.calibration": "none",
    "evaluation.blocks": ("i",),
    "evaluation.networks": "",  # the paper's table of four networks is asked for by name
    "evaluation.protocols": "sgd",
    "evaluation.adam_rate": 1e-3,
    "evaluation.rows": (
        "distilled",
        "initial",
        "initial_at_baseline_rate",
        "random_real",
        "full_real",
    ),
    "evaluation.extra_rows": ("hard", "8bit"),
}
# Names and places. `runtime` is not what is computed but how.
NOT_PUBLISHED = {
    "name",
    "data.data_dir",
    "data.path",
    "data.train_list",
    "data.memory",
    "data.cache",
    "data.follow_links",
    "data.max_file_mb",
    "data.max_total_gb",
    "data.imbalance_factor",  # in the name of the cell, see below
    "distill.ipc",
    "experts.path",
    "evaluation.keep_networks",
    "labels.views",
    "labels.view_dtype",
}
# Students of a teacher: no cell of these has any.
NOT_PUBLISHED |= {
    f"student.{name}"
    for name in (
        *("num_epochs", "batch_size", "optimizer", "learning_rates", "schedule", "momentum"),
        *("weight_decay", "decay_vectors", "loss", "temperature", "hard_weight", "ema"),
        *("area", "flip", "cutmix"),
    )
}
# Sections of the config that the paper's method does not read.
OTHER_FAMILIES = (
    *("gradient_matching", "distribution_matching", "dream", "kernel"),
    *("crops", "recovery"),  # see tests/catalogue/test_recovery.py
    *("teacher", "observer"),  # networks that other methods ask, see TEACHERS
)
# Read only with sequential generation.
WITHOUT_EFFECT = {
    "trajectory.representation.current_start_epoch",
    "trajectory.representation.expansion_end",
    "trajectory.classifier.current_start_epoch",
    "trajectory.classifier.expansion_end",
}


def load_flat(file: str, argument: str) -> dict[str, object]:
    """All fields of a config by their dotted names."""
    spec = importlib.util.spec_from_file_location(file, CONFIGS / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return records.flatten(module.get_config(argument).to_dict())


def cifar10_cell(numbers: list[str]) -> dict[str, object]:
    """The fields that one line of CIFAR10_CELLS gives."""
    steps_1, steps_2, low, current, high, expand, current_2 = (int(n) for n in numbers[:7])
    image_lr, weight_1, weight_2 = (float(n) for n in numbers[7:])
    fields = {
        "trajectory.representation.student_steps": steps_1,
        "trajectory.classifier.student_steps": steps_2,
        "trajectory.representation.min_start_epoch": low,
        "trajectory.representation.current_start_epoch": current,
        "trajectory.representation.max_start_epoch": high,
        "trajectory.representation.sequential": expand > 0,
        "trajectory.classifier.sequential": expand > 0,
        "trajectory.classifier.current_start_epoch": current_2,
        "trajectory.image_lr": image_lr,
        "trajectory.representation.loss_weight": weight_1,
        "trajectory.classifier.loss_weight": weight_2,
    }
    if expand:
        fields["trajectory.representation.expansion_end"] = expand
        fields["trajectory.classifier.expansion_end"] = expand
    return fields


def tiny_imagenet_cell(numbers: list[str]) -> dict[str, object]:
    """The fields that one line of TINY_IMAGENET_CELLS gives."""
    return {
        "trajectory.representation.student_steps": int(numbers[0]),
        "trajectory.classifier.student_steps": int(numbers[1]),
        "trajectory.representation.min_start_epoch": int(numbers[2]),
        "trajectory.representation.max_start_epoch": int(numbers[3]),
        "trajectory.batch_size": int(numbers[4]),
        "trajectory.step_size_lr": float(numbers[5]),
        "trajectory.num_iterations": int(numbers[6]) + 1,
    }


def cells() -> list[tuple[str, str, dict[str, object]]]:
    """(config file, cell, its published fields) of all cells."""
    found = []
    for line in CIFAR10_CELLS.split("\n")[1:-1]:
        cell, *numbers = line.split()
        found.append(("cifar10_lt", cell, COMMON | CIFAR10 | cifar10_cell(numbers)))
    for line in CIFAR100_CELLS.split("\n")[1:-1]:
        cell, low, high = line.split()
        starts = {
            "trajectory.representation.min_start_epoch": int(low),
            "trajectory.representation.max_start_epoch": int(high),
        }
        found.append(("cifar100_lt", cell, COMMON | CIFAR100 | starts))
    for line in TINY_IMAGENET_CELLS.split("\n")[1:-1]:
        cell, *numbers = line.split()
        fields = COMMON | TINY_IMAGENET | tiny_imagenet_cell(numbers)
        found.append(("tiny_imagenet_lt", cell, fields))
    return found


@pytest.mark.parametrize(("file", "cell", "published"), cells())
def test_cell_has_the_published_constants(file, cell, published):
    config = load_flat(file, cell)
    expected = published | OURS
    wrong = {name: config.get(name) for name in expected if config.get(name) != expected[name]}
    assert not wrong, {name: (value, expected[name]) for name, value in wrong.items()}
    kinds = {name: type(config[name]) for name in expected}
    assert kinds == {name: type(value) for name, value in expected.items()}
    factor, ipc = cell.removeprefix("if").split("_ipc")
    assert (config["data.imbalance_factor"], config["distill.ipc"]) == (float(factor), int(ipc))


@pytest.mark.parametrize(("file", "cell", "published"), cells())
def test_every_field_is_said_to_be_published_or_not(file, cell, published):
    """A field that only sequential generation reads has to be published where that is on."""
    said = published.keys() | OURS.keys() | NOT_PUBLISHED
    if not published["trajectory.representation.sequential"]:
        said |= WITHOUT_EFFECT
    # How it is computed; other methods, see tests/distill/test_published_methods.py.
    other = ("runtime.", "selection.", *(f"{name}." for name in OTHER_FAMILIES))
    fields = {name for name in load_flat(file, cell) if not name.startswith(other)}
    assert fields == said - {"runtime.precision"}


# Cui et al., AAAI 2026, whose networks are trained by GLMC (CVPR 2023).
TEACHERS = {
    "width": 0,  # 128 of net.width for a ConvNet, 64 for a ResNet-32
    "resnet_width": 0,  # as width says
    "depth": 0,
    "recipe": "glmc",
    "augment": "crop_flip",
    "num_epochs": 200,
    "batch_size": 64,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.005,
    "tau": 1.0,  # of the other recipes
    "glmc.weight_power": 0.8,
    "glmc.sampling_power": 0.8,
    "glmc.similarity": 1.0,
}


@pytest.mark.parametrize(("kind", "net"), [("teacher", "convnet"), ("observer", "resnet32_bn")])
def test_teachers_are_trained_as_published(kind, net):
    config = load_flat("cifar10_lt", "if100_ipc10")
    found = {name: value for name, value in config.items() if name.startswith(f"{kind}.")}
    expected = {"nets": (net,), **TEACHERS}
    assert found == {f"{kind}.{name}": value for name, value in expected.items()}


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_channel_constants_of_the_cifars(source):
    """Breaks when CIFAR-100 gets constants of its own: the released program has one set."""
    mean, std = sources.channel_constants(source, np.zeros((2, 4, 4, 3), np.uint8))
    assert (mean, std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
