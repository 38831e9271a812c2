"""Settings that are chosen for a budget of time, one by one, beside those that the user fixed."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Choice:
    """One setting.

    Attributes:
      field: dotted name in the config.
      value: of the type of the field.
      reason: one clause.
    """

    field: str
    value: Any
    reason: str


class Settings:
    """Settings while they are chosen: the user's, then the chosen ones, then the config's.

    Args:
      current: every dotted field of the config -> its value.
      fixed: fields that stay as they are.
    """

    def __init__(self, current: Mapping[str, Any], fixed: Collection[str]):
        self._current, self._fixed = current, fixed
        self.chosen: list[Choice] = []

    def add(self, choices: Iterable[Choice]) -> None:
        """Takes the choices that are not the user's."""
        self.chosen += [choice for choice in choices if choice.field not in self._fixed]

    def is_fixed(self, field: str) -> bool:
        """Whether a budget leaves the field as it is."""
        return field in self._fixed

    def pick(self, field: str, value: Any) -> Any:
        """The user's value of a field that is fixed, otherwise `value`."""
        return self[field] if self.is_fixed(field) else value

    def __getitem__(self, field: str) -> Any:
        found = (choice.value for choice in self.chosen if choice.field == field)
        return next(found, self._current[field])
