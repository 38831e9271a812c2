"""Families of methods: the settings, names, builder and checks of one are declared in one call.

Nothing here imports JAX: a builder is named, and imported by the run that needs it.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from ltdd_jax import fields, presets, validation

# Section of the config with the settings -> "module:function"; the function is called with a
# `distill.Task`, `ipc` and the fields of the section, and returns a `distill.Method`.
BUILDERS: dict[str, str] = {
    "trajectory": "ltdd_jax.distill.trajectory:make_method",
    "selection": "ltdd_jax.distill.selection:make_method",
}


def register(
    section: str,
    *,
    builder: str,
    settings: fields.Tree,
    methods: Mapping[str, presets.Preset],
    check: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Adds a family; its methods can be chosen by name from then on.

    Args:
      section: of the config, for its settings; also the name of the family.
      builder: "module:function".
      settings: name -> field.
      methods: name -> preset, all of this section.
      check: dotted field name -> value of the whole config; raises UserError where they do not go
        together.

    Raises:
      ValueError: a name that is taken, or a preset of another section.
    """
    taken = [n for n in methods if n in presets.PRESETS] + [s for s in [section] if s in BUILDERS]
    if taken or section in fields.FIELDS:
        raise ValueError(f"{(taken or [section])[0]} is registered already")
    strangers = [name for name, preset in methods.items() if preset.section != section]
    if strangers:
        raise ValueError(f"preset {strangers[0]} is not of section {section}")
    BUILDERS[section] = builder
    presets.PRESETS.update(methods)
    fields.FIELDS[section] = dict(settings)
    fields.FIELDS["distill"]["method"] = fields.method_field()
    if check is not None:
        validation.CHECKS[section] = check


def find_builder(section: str) -> Callable[..., Any]:
    """The function that builds the methods of a family."""
    module, _, name = BUILDERS[section].partition(":")
    return getattr(importlib.import_module(module), name)
