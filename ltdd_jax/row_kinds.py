"""Which kinds of rows an evaluation has: those that are asked for and that its method has."""

from collections.abc import Mapping
from typing import Any

from ltdd_jax import presets
from ltdd_jax.evaluation_fields import AT_BASELINE_RATE

STARTS = ("initial", AT_BASELINE_RATE)  # of the set, at one of two rates


def list_kinds(values: Mapping[str, Any], block: str) -> set[str]:
    """Kinds of `evaluation_fields.ROWS` that are asked for and that a block has.

    Rows of real images that are trained for their learning rate alone are not among them, see
    `needs_rates`.

    Args:
      values: dotted field name -> value.
      block: "i" or "ii"; one that is not evaluated has none.
    """
    if block not in values["evaluation.blocks"]:
        return set()
    return set(values["evaluation.rows"]) - explain_lacking(values, block).keys()


def needs_rates(values: Mapping[str, Any], block: str) -> bool:
    """Whether a row of the block takes the learning rate that random real images choose."""
    takers = {"distilled", "initial"} if block == "ii" else {AT_BASELINE_RATE}
    if block == "i" and _find_section(values) == "selection":
        takers = {"distilled"}
    return bool(list_kinds(values, block) & takers)


def explain_lacking(values: Mapping[str, Any], block: str) -> dict[str, str]:
    """Kinds that a block has not, whatever is asked for -> why, as part of a sentence."""
    lacking, section = {}, _find_section(values)
    if block == "ii":
        lacking["full_real"] = "the whole training set is a row of block i alone"
        lacking[AT_BASELINE_RATE] = "block ii has one rate for all rows"
    if section == "selection":
        reason = "a selection begins as what it is"
        lacking |= dict.fromkeys(STARTS, reason)
    elif section == "crops" and (block == "ii" or not _has_other_labels(values)):
        lacking["initial"] = "confident crops stay what they begin as"
    return lacking


def _find_section(values):
    return presets.PRESETS[values["distill.method"]].section


def _has_other_labels(values):
    """Whether networks of block (i) learn labels that the method did not give."""
    source = values["labels.relabel"]
    return source in ("experts", "teacher") or (
        source == "none" and values["labels.calibration"] != "none"
    )
