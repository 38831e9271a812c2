"""The commands below a table: the first in full, those like it by what is different."""

import html
import shlex
from collections.abc import Mapping

from measured import Number

_SHORTER = 0.6  # of the whole command; what says less than that by its differences stays whole


class Commands:
    """The commands below a table, numbered in the order of their use."""

    def __init__(self):
        self._numbers: dict[tuple[str, str], int] = {}

    def refer(self, row: Number) -> str:
        """The number of the command that makes a row again."""
        where = "; ".join(x for x in (f"commit {row.commit}", row.machine, row.date) if x)
        return str(self._numbers.setdefault((row.command, where), len(self._numbers) + 1))

    def render(self) -> list[str]:
        """Folded; HTML, as Markdown within it is not read everywhere."""
        whole: dict[int, str] = {}
        items = []
        for (command, where), number in self._numbers.items():
            shown = _name_differences(command, whole)
            if shown is None:
                whole[number], shown = command, _code(command)
            items.append(f"<li>{shown} ({html.escape(where)})</li>")
        return ["", "<details><summary>Commands</summary>", "<ol>", *items, "</ol>", "</details>"]


def _name_differences(command: str, whole: Mapping[int, str]) -> str | None:
    """'command 2 with --set=b and without --config.x=1', or None where that is hardly shorter."""
    found = []
    own = _read(command)
    for number, other in whole.items():
        base = _read(other)
        if own is None or base is None or own[0] != base[0]:
            continue
        changed = [f"{k}={v}" for k, v in own[1].items() if base[1].get(k) != v]
        dropped = [f"{k}={v}" for k, v in base[1].items() if k not in own[1]]
        parts = [f"command {number}"]
        parts += [f"with {_code(shlex.join(changed))}"] if changed else []
        parts += [f"without {_code(shlex.join(dropped))}"] if dropped else []
        found.append(" and ".join([" ".join(parts[:2]), *parts[2:]]))
    shortest = min(found, key=len, default=None)
    return shortest if shortest and len(shortest) < _SHORTER * len(_code(command)) else None


def _read(command):
    """(program, option -> value) of a command that has every option once; else None."""
    words = shlex.split(command)
    options = [word.partition("=") for word in words if word.startswith("--") and "=" in word]
    program = [word for word in words if not (word.startswith("--") and "=" in word)]
    values = {name: value for name, _, value in options}
    if "&&" in words or len(values) < len(options):
        return None
    return program, values


def _code(text):
    return f"<code>{html.escape(text, quote=False)}</code>"
