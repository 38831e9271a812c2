"""What the table of settings is made of: fields and the rules for their values."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any


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


def at_least(low: float) -> Rule:
    """A finite number of at least `low`."""
    return Rule(lambda value: low <= value < math.inf, f"a finite number of at least {low}")


def within(low: float, high: float) -> Rule:
    """A number from `low` to `high`, both allowed."""
    return Rule(lambda value: low <= value <= high, f"from {low} to {high}")


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: value in choices, f"one of {', '.join(choices)}", choices)


def are_rates(value: tuple) -> bool:
    """Whether a tuple holds one or more numbers above 0."""
    return len(value) > 0 and all(type(x) in (int, float) and 0 < x < math.inf for x in value)


def are_words(text: str, choices: Sequence[str]) -> bool:
    """Whether a text is one or more of some words, joined by commas, none of them twice."""
    words = text.split(",")
    return len(set(words)) == len(words) and set(words) <= set(choices)


def are_words_of(*choices: str, allow_none: bool = False) -> Callable[[tuple], bool]:
    """Whether a tuple holds one or more of some words, none of them twice."""

    def check(value: tuple) -> bool:
        known = all(isinstance(x, str) and x in choices for x in value)
        return known and len(set(value)) == len(value) and (allow_none or len(value) > 0)

    return check


def is_range_of_shares(value: tuple) -> bool:
    """Whether a tuple holds two numbers above 0 and at most 1, ascending."""
    numbers = len(value) == 2 and all(type(x) in (int, float) for x in value)
    return numbers and 0 < value[0] <= value[1] <= 1


POSITIVE = Rule(lambda value: 0 < value < math.inf, "a finite number above 0")
MOMENTUM = Rule(lambda value: 0 <= value < 1, "at least 0 and below 1")
FREE = Rule(lambda value: True, "")  # any value of the right type
