"""What each field of the config may be, and which combinations make sense."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ltdd_jax.types import UserError

SOURCES = ("digits", "cifar10", "cifar100", "fashion_mnist", "folder", "npz")  # also "tfds:NAME"
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


_MAX_INT = 2**31 - 1  # what the compiled programs count with


class _Rule(NamedTuple):
    is_allowed: Callable[[Any], bool]
    text: str  # ends the sentence "it must be ..."
    choices: tuple[str, ...] = ()  # to suggest from


def _at_least(low: float) -> _Rule:
    return _Rule(lambda value: low <= value < math.inf, f"a finite number of at least {low}")


def _within(low: float, high: float) -> _Rule:
    return _Rule(lambda value: low <= value <= high, f"from {low} to {high}")


def _one_of(*choices: str) -> _Rule:
    return _Rule(lambda value: value in choices, f"one of {', '.join(choices)}", choices)


def _is_source(value: str) -> bool:
    return value in SOURCES or re.fullmatch(r"tfds:[\w./:-]+", value) is not None


def _is_strategy(value: str) -> bool:
    return not value or set(value.split("_")) <= set(AUGMENTATIONS)


_POSITIVE = _Rule(lambda value: 0 < value < math.inf, "a finite number above 0")
_MOMENTUM = _Rule(lambda value: 0 <= value < 1, "at least 0 and below 1")
_FREE = _Rule(lambda value: True, "")  # any value of the right type

_OPTIMIZER_RULES = {
    "num_epochs": _at_least(1),
    "batch_size": _at_least(1),
    "learning_rate": _POSITIVE,
    "momentum": _MOMENTUM,
    "weight_decay": _at_least(0),
    "rho": _at_least(0),
    "alpha": _at_least(0),
    "adaptive": _FREE,
}
_PHASE_RULES = {
    "student_steps": _at_least(1),
    "min_start_epoch": _at_least(0),
    "current_start_epoch": _at_least(0),
    "max_start_epoch": _at_least(1),
    "sequential": _FREE,
    "expansion_end": _at_least(1),
    "loss_weight": _at_least(0),
}
_RULES: dict[str, Any] = {
    "name": _Rule(
        lambda value: re.fullmatch(r"\w[\w.-]*", value) is not None,
        "a file name of letters, digits, '.', '_' and '-'",
    ),
    "seed": _within(0, 2**31 - 1),
    "data": {
        "source": _Rule(_is_source, f"one of {', '.join(SOURCES)} or tfds:NAME", SOURCES),
        "data_dir": _FREE,
        "path": _FREE,
        "image_size": _Rule(lambda value: value == 0 or 4 <= value <= 1024, "0 or 4 to 1024"),
        "subset": _one_of("long_tail", "as_is"),
        "imbalance_factor": _at_least(1),
        "whiten": _FREE,
        "zca_eps": _POSITIVE,
        "normalize": _FREE,
        "mismatched_test": _FREE,
    },
    "net": {"name": _one_of(*NETS), "width": _at_least(1), "depth": _within(1, 8)},
    "augment": {
        "strategy": _Rule(
            _is_strategy, f"words of {', '.join(AUGMENTATIONS)} joined by '_', or empty"
        )
    },
    "experts": {
        "path": _FREE,
        "num_experts": _at_least(1),
        "representation": _OPTIMIZER_RULES,
        "classifier": {
            **_OPTIMIZER_RULES,
            "group_images": _at_least(1),
            "max_norm": _FREE,
            "max_norm_threshold": _within(0, 1),
        },
    },
    "distill": {
        "ipc": _at_least(1),
        "num_iterations": _at_least(1),
        "gradient": _one_of("exact", "two_pass", "autodiff"),
        "expert_epochs": _at_least(1),
        "batch_size": _at_least(1),
        "initial_images": _one_of("correct", "real", "noise"),
        "initial_step_size": _POSITIVE,
        "image_lr": _at_least(0),
        "image_momentum": _MOMENTUM,
        "label_lr": _at_least(0),
        "label_momentum": _MOMENTUM,
        "step_size_lr": _at_least(0),
        "step_size_momentum": _MOMENTUM,
        "class_weight_offset": _at_least(0),
        "skip_threshold": _at_least(0),
        "experts_per_file": _at_least(1),
        "pairs_per_iteration": _at_least(1),
        "representation": _PHASE_RULES,
        "classifier": _PHASE_RULES,
    },
    "evaluation": {
        "num_seeds": _at_least(1),
        "num_epochs": _at_least(1),
        "batch_size": _at_least(1),
        "momentum": _MOMENTUM,
        "weight_decay": _at_least(0),
        "baseline_step_size": _POSITIVE,
        "full_num_epochs": _at_least(0),
    },
    "runtime": {
        "expert_group_size": _at_least(0),
        "convolution": _one_of(*CONVOLUTIONS),
        "image_storage": _one_of("auto", "uint8", "float32"),
        "precision": _one_of("float32", "tf32", "bfloat16"),
        "iterations_per_call": _at_least(0),
        "log_steps": _at_least(1),
        "checkpoint_steps": _at_least(1),
        "checkpoint_epochs": _at_least(1),
        "checkpoint_minutes": _at_least(0),
        "snapshot_cache_mb": _at_least(0),
        "compilation_cache": _FREE,
    },
}

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_fields(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Checks names, types, ranges and combinations.

    Args:
      values: dotted field name -> value.
      defaults: the same for the base config; it says which fields there are, and their types.

    Raises:
      UserError: at the first field that is not as it should be.
    """
    for path in defaults.keys() - values.keys():
        raise UserError(f"--config.{path} is missing: set it, its default is {defaults[path]!r}")
    for path in values.keys() - defaults.keys():
        raise UserError(f"--config.{path} is not a field of the config: remove it")
    for path, default in defaults.items():
        _check_field(path, values[path], default)
    _check_data(values)
    for phase in ("representation", "classifier"):
        _check_phase(values, phase)
    if not any(values[f"distill.{p}.loss_weight"] for p in ("representation", "classifier")):
        raise UserError(
            "--config.distill.representation.loss_weight and --config.distill.classifier."
            "loss_weight are both 0, so that nothing is matched: set at least one above 0"
        )


def describe_wrong_type(path: str, value: Any, default: Any) -> str:
    """The sentence for a value of another type than the field's default."""
    return (
        f"--config.{path}={_one_line(value)} has the wrong type: it must be "
        f"{_TYPE_NAMES[type(default)]}, for instance --config.{path}={_show(default)}"
    )


def suggest(word: str, known: Sequence[str], prefix: str = "") -> str:
    """A bracket with the known name nearest to `word`, or nothing.

    A dotted name is also compared by its last part, for a field looked for in the wrong section.
    """
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    if not matches:
        by_leaf = {name.rpartition(".")[2]: name for name in reversed(known)}
        leaf = word.rpartition(".")[2]
        matches = [by_leaf[m] for m in difflib.get_close_matches(leaf, by_leaf, n=1)]
    return f" (did you mean {prefix}{matches[0]}?)" if matches else ""


def _check_field(path: str, value: Any, default: Any) -> None:
    if type(value) is not type(default):
        raise UserError(describe_wrong_type(path, value, default))
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise UserError(
            f"--config.{path}={value} is not possible: whole numbers go up to {_MAX_INT}, "
            f"for instance --config.{path}={_show(default)}"
        )
    rule = _rule(path)
    if not rule.is_allowed(value):
        raise UserError(
            f"--config.{path}={_show(value)} is not possible: it must be {rule.text}"
            f"{suggest(str(value), rule.choices)}, for instance --config.{path}={_show(default)}"
        )


def _rule(path: str) -> _Rule:
    rule = _RULES
    for name in path.split("."):
        rule = rule[name]
    return rule


def _show(value: Any) -> str:
    """As one would write it on the command line."""
    return _one_line(str(value).lower() if isinstance(value, bool) else value)


def _one_line(value: Any) -> str:
    return str(value) if str(value).isprintable() else repr(value)


def _check_data(values: Mapping[str, Any]) -> None:
    source, path = values["data.source"], values["data.path"]
    if source == "folder" and not path:
        raise UserError(
            "--config.data.path is empty: with --config.data.source=folder it must be the "
            "directory or .tar that holds train/ and test/"
        )
    if source == "npz" and not path:
        raise UserError(
            "--config.data.path is empty: with --config.data.source=npz it must be the .npz file"
        )
    if source not in ("folder", "npz", "fashion_mnist") and path:
        raise UserError(
            f"--config.data.path={path} is not read with --config.data.source={source}: set "
            "--config.data.source=folder, or leave the path out"
        )
    if values["data.mismatched_test"] and values["data.normalize"]:
        raise UserError(
            "--config.data.mismatched_test=true normalises the test images only, so it needs "
            "--config.data.normalize=false"
        )


def _check_phase(values: Mapping[str, Any], phase: str) -> None:
    def field(name):
        return f"distill.{phase}.{name}"

    low, high = values[field("min_start_epoch")], values[field("max_start_epoch")]
    current = values[field("current_start_epoch")]
    epochs, ahead = values[f"experts.{phase}.num_epochs"], values["distill.expert_epochs"]
    if low >= high:
        raise UserError(
            f"--config.{field('min_start_epoch')}={low} leaves no start epoch below "
            f"--config.{field('max_start_epoch')}={high}: it must be smaller, "
            "lower it or raise the maximum"
        )
    if values[field("sequential")] and current > high:
        raise UserError(
            f"--config.{field('current_start_epoch')}={current} is above "
            f"--config.{field('max_start_epoch')}={high}, up to which it grows: "
            f"it must be from 0 to {high}"
        )
    needed = high - 1 + ahead  # the maximum is excluded
    if needed > epochs:
        raise UserError(
            f"--config.{field('max_start_epoch')}={high} reaches beyond the experts: the last "
            f"start {high - 1} and --config.distill.expert_epochs={ahead} need {needed} epochs, "
            f"and there are {epochs}; lower one of them or raise "
            f"--config.experts.{phase}.num_epochs to at least {needed}"
        )
