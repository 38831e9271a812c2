"""Checks of a config: each field against the table in `fields`, and combinations by hand."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltdd_jax import fields, presets, row_kinds
from ltdd_jax.errors import UserError

_WITH_PATH = ("folder", "npz", "fashion_mnist", "tiny_imagenet", "imagenet")
_SET_NAME = re.compile(r"\w[\w.-]{0,99}")
_MAX_NAME_BYTES = 200  # most file systems take 255, and the names of files have endings
_WAYS = {"networks": "", "protocols": "sgd"}  # field -> no further training of any row
_MAX_INT = 2**31 - 1  # what the compiled programs count with
_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "values in brackets",
}


def check_fields(values: Mapping[str, Any], *, settled: bool = True) -> None:
    """Checks names, types, ranges and combinations.

    Args:
      values: dotted field name -> value.
      settled: False where a budget has still to choose the epochs of experts and what they are
        matched at, so that these need not fit each other yet.

    Raises:
      UserError: at the first field that is not as it should be.
    """
    table = fields.flatten_fields()
    for path in table.keys() - values.keys():
        default = table[path].default
        raise UserError(f"--config.{path} is missing: set it, its default is {default!r}")
    for path in values.keys() - table.keys():
        raise UserError(f"--config.{path} is not a field of the config: remove it")
    for path, field in table.items():
        _check_field(path, values[path], field)
    _check_data(values)
    _check_evaluation(values)
    section = presets.PRESETS[values["distill.method"]].section
    if section in CHECKS:
        CHECKS[section](values)
    if section == "trajectory" and (settled or not values["budget"]):
        for phase in _list_phases(values):
            _check_phase(values, phase)


def is_set_name(text: str) -> bool:
    """Whether a distilled set, its directory and the files that are called like it can be so."""
    return bool(_SET_NAME.fullmatch(text)) and len(text.encode("utf-8")) <= _MAX_NAME_BYTES


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


def _check_field(path: str, value: Any, field: fields.Field) -> None:
    default, rule = field.default, field.rule
    if type(value) is not type(default):
        raise UserError(describe_wrong_type(path, value, default))
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise UserError(
            f"--config.{path}={value} is not possible: whole numbers go up to {_MAX_INT}, "
            f"for instance --config.{path}={_show(default)}"
        )
    if not rule.is_allowed(value):
        raise UserError(
            f"--config.{path}={_show(value)} is not possible: it must be {rule.text}"
            f"{suggest(str(value), rule.choices)}, for instance --config.{path}={_show(default)}"
        )


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
            "directory, .zip or .tar that holds train/ and test/"
        )
    if source == "npz" and not path:
        raise UserError(
            "--config.data.path is empty: with --config.data.source=npz it must be the .npz file"
        )
    if source not in _WITH_PATH and path:
        raise UserError(
            f"--config.data.path={path} is not read with --config.data.source={source}: set "
            "--config.data.source=folder, or leave the path out"
        )
    if values["data.train_list"] and values["data.subset"] != "as_is":
        raise UserError(
            f"--config.data.train_list={values['data.train_list']} says which pictures count, so "
            "that nothing is left to cut: it needs --config.data.subset=as_is"
        )
    if values["data.mismatched_test"] and values["data.normalize"]:
        raise UserError(
            "--config.data.mismatched_test=true normalises the test images only, so it needs "
            "--config.data.normalize=false"
        )


def _check_evaluation(values: Mapping[str, Any]) -> None:
    blocks, kinds = values["evaluation.blocks"], values["evaluation.rows"]
    if not any(row_kinds.list_kinds(values, block) for block in blocks):
        lacking = row_kinds.explain_lacking(values, "i" if "i" in blocks else "ii")
        reasons = " and ".join(dict.fromkeys(lacking[kind] for kind in kinds))
        raise UserError(
            f"--config.evaluation.rows={kinds} leaves nothing to evaluate, since {reasons}: add "
            "'distilled' or 'random_real'"
        )
    ways = [name for name, none in _WAYS.items() if values[f"evaluation.{name}"] != none]
    if ways and not {"distilled", "random_real"} & set(kinds):
        raise UserError(
            f"--config.evaluation.{ways[0]} asks for further trainings on the distilled set and on "
            f"random real images, which --config.evaluation.rows={kinds} leaves out: add one of "
            "them"
        )
    if ways and "i" not in blocks:
        name = ways[0]
        raise UserError(
            f"--config.evaluation.{name}={values[f'evaluation.{name}']} asks for further trainings "
            "of the rows of block i, which is not evaluated: set "
            f"--config.evaluation.blocks=('i', 'ii'), or --config.evaluation.{name}={_WAYS[name]}"
        )


def _list_phases(values):
    return [p for p in ("representation", "classifier") if values[f"trajectory.{p}.loss_weight"]]


def check_partition(values: Mapping[str, Any], section: str) -> None:
    """Raises UserError where images cannot be cut into as many equal pictures as a family asks."""
    factor, side = values[f"{section}.partition"], values["data.image_size"]
    if side % factor:
        raise UserError(
            f"--config.{section}.partition={factor} cuts every image into {factor} x {factor} "
            f"equal pictures: set --config.data.image_size={side} to a multiple of {factor}"
        )


def _check_trajectory(values: Mapping[str, Any]) -> None:
    check_partition(values, "trajectory")
    phases = _list_phases(values)
    if not phases:
        raise UserError(
            "--config.trajectory.representation.loss_weight and --config.trajectory.classifier."
            "loss_weight are both 0, so that nothing is matched: set at least one above 0"
        )
    if values["trajectory.classifier.matched"] != "classifier":
        raise UserError(
            f"--config.trajectory.classifier.matched={values['trajectory.classifier.matched']} is "
            "not possible: in this phase only the classifier moves, so it must be classifier"
        )
    if values["trajectory.labels"] == "target" and (
        phases != ["representation"] or values["trajectory.representation.matched"] != "all"
    ):
        raise UserError(
            "--config.trajectory.labels=target takes the labels from the target snapshot, so it "
            "needs --config.trajectory.representation.matched=all and "
            "--config.trajectory.classifier.loss_weight=0, as the preset tesla has them"
        )


def _check_phase(values: Mapping[str, Any], phase: str) -> None:
    def field(name):
        return f"trajectory.{phase}.{name}"

    low, high = values[field("min_start_epoch")], values[field("max_start_epoch")]
    current = values[field("current_start_epoch")]
    epochs, ahead = values[f"experts.{phase}.num_epochs"], values["trajectory.expert_epochs"]
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
            f"start {high - 1} and --config.trajectory.expert_epochs={ahead} need {needed} epochs, "
            f"and there are {epochs}; lower one of them or raise "
            f"--config.experts.{phase}.num_epochs to at least {needed}"
        )


# Section of a family -> check of the combinations of its fields.
CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {"trajectory": _check_trajectory}
