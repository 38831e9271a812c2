"""What the text of a program compiled for a TPU says: collectives and the compiler's own estimate.

XLA:TPU writes into every instruction how many cycles it expects it to take. Their sum is no
measurement (transfers that overlap with arithmetic count in full), and is the only figure for speed
that can be had without the chip: it compares two programs for the same chip, such as two forms of
the convolution.
"""

import collections
import functools
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
_CALLED = re.compile(r"(?:body|condition|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r" conditional\(.*?branch_computations=\{([^}]*)\}")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


def find_collectives(text: str) -> dict[str, int]:
    """Name -> number of instructions in which devices exchange data."""
    return dict(collections.Counter(_COLLECTIVE.findall(text)))


def estimate_cycles(text: str) -> int:
    """Cycles of one call, with one round of every loop and the costliest branch of every choice."""
    own, called, entry = _read_computations(text)

    @functools.cache
    def total(name):
        choices = (max((total(n) for n in names), default=0) for names in called[name])
        return own[name] + sum(choices)

    return total(entry)


def _read_computations(text):
    """Cycles of each computation's own instructions, what these call in turn, and the entry.

    A fused instruction has the cycles of all its parts; those are not called.
    """
    own, called, entry, name = {}, {}, "", ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            name = found[1]
            own[name], called[name] = 0, []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            if found := _CYCLES.search(line):
                own[name] += int(found[1])
            if found := _BRANCHES.search(line):
                called[name].append(re.findall(r"%([\w.\-]+)", found[1]))
            called[name] += [[n] for n in _CALLED.findall(line)]
    return own, called, entry
