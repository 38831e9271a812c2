"""What the text of a program compiled for a TPU says: collectives and the compiler's own estimate.

XLA:TPU writes into every instruction how many cycles it expects it to take. Their sum is no
measurement (transfers that overlap with arithmetic count in full), and is the only figure for speed
that can be had without the chip: it compares two programs for the same chip, such as two forms of
the convolution.
"""

import collections
import re

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
    "send",
    "recv",
)

_COLLECTIVE = re.compile(rf" = .*? ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) .*\{$")
_FUSED = re.compile(r" fusion\(.*?calls=%([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KIND = re.compile(r" = (?:\(.*?\)|\S+) ([\w\-]+)\(")


def find_collectives(text: str) -> dict[str, int]:
    """Name -> number of instructions in which devices exchange data."""
    return dict(collections.Counter(_COLLECTIVE.findall(text)))


def estimate_cycles(text: str) -> int:
    """Cycles of every instruction once: those of a loop's body count for one round of it."""
    fused = set(_FUSED.findall(text))
    total, inside_fused = 0, False
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            inside_fused = found[1] in fused
        elif not inside_fused and (found := _CYCLES.search(line)):
            total += int(found[1])
    return total


def count_instructions(text: str) -> dict[str, int]:
    """Kind -> number of instructions, those inside of fused ones included."""
    return dict(collections.Counter(_KIND.findall(text)))
