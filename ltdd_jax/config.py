"""Configs of runs: the base config, presets, validation and what identifies a result.

A file in `configs/` calls `base_config()`, overrides fields, lays a method's preset over it with
`use_preset` and returns the result; the command line overrides further with
`--config.section.field=value`. All fields are listed in `fields`.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ltdd_jax import (
    catalogue,  # noqa: F401  so that every config knows all families
    fields,
    presets,
    row_kinds,
    validation,
)
from ltdd_jax.errors import UserError
from ltdd_jax.records import flatten

METHODS = presets.PRESETS.keys()  # a view, which shows methods that are registered later
DEFAULT_METHOD = "dam_ed"
ROWS = fields.ROWS  # kinds of what an evaluation trains networks on
# Where files lie is not part of what a result is: data and trajectories carry fingerprints.
_LOCATIONS = (
    "data.data_dir",
    "data.path",
    "data.train_list",
    "data.memory",
    "data.cache",
    "experts.path",
)
# What may be read: the fingerprint says what was. They stand in identities with their defaults, as
# those of older runs have them.
_LIMITS = ("data.follow_links", "data.max_file_mb", "data.max_total_gb")
_OF_JUDGES = ("data.judge", "data.judge_share")  # not of results on the test set, older than these


def base_config() -> ConfigDict:
    """Returns the default of every field, locked: assigning to an unknown field raises."""
    return ConfigDict(fields.defaults(), convert_dict=True).lock()


def use_preset(config: ConfigDict, method: str) -> None:
    """Makes `config` one of `method`: what the method is, and its published numbers if any.

    Call it last: it reads `data.source` and `distill.ipc`.

    Args:
      config: changed in place.
      method: of `METHODS`.
    """
    chosen = presets.choose(method, config.data.source, config.distill.ipc)
    config.update_from_flattened_dict(chosen)


def set_field(config: ConfigDict, field: str, value: Any) -> None:
    """Sets one field by its dotted name.

    Raises:
      UserError: there is no such field, or the value has another type.
    """
    table = fields.flatten_fields()
    if field not in table:
        raise UserError(
            f"{field} is not a field of the config{validation.suggest(field, list(table))}"
        )
    if isinstance(table[field].default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(table[field].default):
        raise UserError(validation.describe_wrong_type(field, value, table[field].default))
    config.update_from_flattened_dict({field: value})


def locate_data(config: ConfigDict) -> dict[str, Any]:
    """Where the data lie and how much may be read, as arguments of `sources.load_splits`."""
    names = (
        *("data_dir", "path", "image_size", "train_list", "follow_links"),
        *("max_file_mb", "max_total_gb", "memory", "cache"),
    )
    return {name: config.data[name] for name in names}


def list_splits(config: ConfigDict) -> tuple[str, ...]:
    """The splits that are read: no test set where held-out training images judge."""
    return ("train",) if config.data.judge == "held_out" else ("train", "test")


def has_taught_rows(config: ConfigDict) -> bool:
    """Whether rows of block (ii) are evaluated; the whole training set is none of them."""
    return bool(row_kinds.list_kinds(flatten(config.to_dict()), "ii"))


def validate(config: ConfigDict, *, settled: bool = True) -> None:
    """Checks every field and the combinations of fields that need no data.

    Args:
      config: a whole config.
      settled: False where a budget has not chosen its part of it yet.

    Raises:
      UserError: one sentence with the field, its value, what is allowed and a value that is.
    """
    validation.check_fields(flatten(config.to_dict()), settled=settled)


def identity(config: ConfigDict, sections: Iterable[str]) -> dict[str, Any]:
    """The part of a config that decides a result, to be stored beside it.

    Args:
      config: a whole config.
      sections: dotted names of sections or fields, such as "data" or "experts.representation".

    Returns:
      A nested dict fit for JSON, without the fields that only say where files lie, with those on
      held-out judges only where there are some, and with the defaults of what limits reading.
    """
    sections = tuple(sections)
    result: dict[str, Any] = {}
    limits = fields.flatten_fields()
    left_out = _LOCATIONS if config.data.judge == "held_out" else (*_LOCATIONS, *_OF_JUDGES)
    for path, value in flatten(config.to_dict()).items():
        if path in left_out or not any(f"{path}.".startswith(f"{name}.") for name in sections):
            continue
        if path in _LIMITS:
            value = limits[path].default
        *parents, leaf = path.split(".")
        section = result
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = list(value) if isinstance(value, tuple) else value
    return result


def identity_hash(found: dict[str, Any]) -> str:
    """SHA-256 in hexadecimal of an identity, written as JSON with sorted keys."""
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_argument(
    argument: str,
    variants: Sequence[str],
    methods: Collection[str] = (),
    modifiers: Sequence[str] = (),
) -> tuple[str, str, frozenset[str]]:
    """Reads what follows the colon of `--config=file.py:VARIANT,METHOD,MODIFIER`.

    Args:
      argument: words joined by commas, in any order; may be empty.
      variants: names of which at most one may be given; the first is the default.
      methods: names of which at most one may be given.
      modifiers: further words.

    Returns:
      The variant, the method ("" if none was given) and the modifiers.

    Raises:
      UserError: an unknown word, two variants or two methods.
    """
    words = [word.strip() for word in argument.split(",") if word.strip()]
    known = [*variants, *methods, *modifiers]
    for word in words:
        if word not in known:
            further = [*methods, *modifiers]
            raise UserError(
                f"the config file has no variant {word!r}{validation.suggest(word, known)}: "
                f"after the colon give one of {', '.join(variants)}"
                + (f", and optionally {', '.join(further)}" if further else "")
            )
    chosen = [word for word in words if word in variants]
    named = [word for word in words if word in methods]
    for several, what in ((chosen, "variant"), (named, "method")):
        if len(several) > 1:
            raise UserError(f"the config file takes one {what}, not {' and '.join(several)}")
    return (chosen or variants)[0], (named or [""])[0], frozenset(words) & frozenset(modifiers)


def find_published(table: Mapping[tuple[int, int], Any], factor: int, ipc: int) -> Any:
    """The entry of a cell in a table of released settings.

    Args:
      table: (imbalance factor, images per class) -> setting.

    Raises:
      UserError: nothing was released for the cell.
    """
    if (factor, ipc) not in table:
        released = ", ".join(f"if{f}_ipc{i}" for f, i in table)
        raise UserError(
            f"if{factor}_ipc{ipc} has no released settings, so as_published is not possible: leave "
            + (f"it out or take one of {released}" if released else "it out")
        )
    return table[factor, ipc]
