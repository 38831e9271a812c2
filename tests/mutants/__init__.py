"""Wrong changes of the program, one line each, and the tests that must see them.

`tests/mutations.py` applies them one by one; `docs/testing.md` says how.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
      name: unique, says what is wrong.
      file: path from the root of the repository.
      old: text that occurs in it exactly once.
      new: what takes its place.
      tests: node ids of which at least one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def of_file(file: str, tests: str, *changes: tuple[str, ...]) -> list[Mutant]:
    """Mutants of one file, from (name, old text, new text, names of tests separated by spaces).

    Args:
      file: path from the root of the repository.
      tests: the file of tests they have in common; a name with "::" stands for itself.
      changes: the four texts of each.
    """
    return [
        Mutant(
            name,
            file,
            old,
            new,
            tuple(test if "::" in test else f"{tests}::{test}" for test in names.split()),
        )
        for name, old, new, names in changes
    ]
