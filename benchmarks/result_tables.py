"""Tables of pages, made of the numbers in docs/results/results.csv.

A page says which by two comments, and what stands between them is replaced:

    <!-- table: cells block=i data=cifar10 width=32 -->
    <!-- end of table -->

Kinds: `cells` (a table with a heading for each data set, imbalance factor, images per class and
width, without studies), `study` (a table of the rows of study=NAME), `curve` (accuracy over
iterations), `networks` (the same sets on other networks), `cost` (seconds and FLOP) and `summary`
(of the sets rows=RUN,RUN). All need block=i or block=ii, since numbers of the two are never
compared, and take data, imbalance_factor, ipc, width, run and study to choose rows. `plan` is made
of docs/results/cost.csv instead, which `method_cost.py` writes.
"""

import csv
import dataclasses
import re
import string
from collections.abc import Callable, Sequence

import measured
import result_words as say
from measured import Number
from result_commands import Commands

from ltdd_jax.errors import UserError
from ltdd_jax.presets import PRESETS

MARKER = re.compile(r"<!-- table: (\w+)((?: \w+=\S+)*) -->\n(.*?)<!-- end of table -->", re.DOTALL)
PUBLISHED = "published (width 128, GPU)"
_BLOCKS = {
    "i": "Block (i): labels are stored with the images.",
    "ii": "Block (ii): a teacher labels views of the images.",
}
_LABELS = {
    "H": "H, the class",
    "S1": "S1, one soft label per image",
    "SE": "SE, soft labels of stored views",
    "ST": "ST, a teacher labels every view",
}
_PIXELS = {
    "original": "The pixels are the originals.",
    "jpeg": "The pixels are of a JPEG copy of the data, for training and testing alike.",
}
_LETTERS = string.ascii_lowercase


def render_page(text: str, numbers: Sequence[Number]) -> str:
    """A page with every table between its comments made anew.

    Raises:
      UserError: a comment of an unknown kind or option, or one for which there is no number.
    """
    return MARKER.sub(lambda match: _fill(match, numbers), text)


def _fill(match, numbers):
    kind, words = match[1], dict(word.split("=", 1) for word in match[2].split())
    comment = match[0].partition("\n")[0]
    if kind not in _KINDS:
        raise UserError(f"{comment}: there is no table {kind}; give one of {', '.join(_KINDS)}")
    odd = sorted(set(words) - {*measured.FILTERS, "run", "rows", "level"})
    if odd or words.get("block") not in measured.BLOCKS:
        wrong = f"unknown option {odd[0]}" if odd else "block=i or block=ii is missing"
        raise UserError(f"{comment}: {wrong}")
    lines = _KINDS[kind](numbers, words)
    if not lines:
        raise UserError(f"{comment}: no number in results.csv is of this kind")
    return "\n".join([comment, "", *lines, "", "<!-- end of table -->"])


def _cells(numbers, words):
    rows = [row for row in measured.choose(numbers, words) if not row.network]
    lines = []
    for setting in sorted({_setting(row) for row in rows}):
        of_it = [row for row in rows if _setting(row) == setting]
        level = "#" * int(words.get("level", 3))
        lines += [f"{level} {say.describe(of_it[0])}", "", *table(of_it, numbers), ""]
    return lines[:-1]


def _study(numbers, words):
    if "study" not in words:
        raise UserError("a table of a study needs study=NAME")
    rows = [
        row for row in measured.choose(numbers, words) if not row.network and row.row != "iteration"
    ]
    return table(rows, numbers, by_variant=True) if rows else []


def _setting(row):
    return (row.data, row.imbalance_factor or 0.0, row.ipc, row.width)


def table(
    rows: Sequence[Number], numbers: Sequence[Number], *, by_variant: bool = False
) -> list[str]:
    """A row for each set beside what it started from, what holds for all rows, and the commands.

    Args:
      rows: of one setting and block.
      numbers: all, where the rows beside are looked for.
      by_variant: whether the variants are what is compared.

    Raises:
      UserError: the rows are of both blocks, or judged by different images.
    """
    for field, words in (("block", "both blocks"), ("judge", "different judges")):
        if len({getattr(row, field) for row in rows}) != 1:
            raise UserError(f"one table may not hold numbers of {words}")
    lines = _choose_lines(rows)
    commands, find = Commands(), _finder(numbers)
    notes = list(dict.fromkeys(row.note for row in lines if row.note))
    columns: dict[str, list[str]] = {
        "trained on": [
            f"{title} [{_LETTERS[notes.index(row.note)]}]" if row.note else title
            for row, title in zip(lines, _name_lines(lines, by_variant), strict=True)
        ],
        "labels": [row.labels for row in lines],
        "accuracy": [say.show(row) for row in lines],
        "before the first iteration": [_show_start(row, find) for row in lines],
        "over random": [say.sign(row.over_random) for row in lines],
        PUBLISHED: [say.show_published(row) for row in lines],
        "hard labels": [say.show(find(row, "distilled_hard")) for row in lines],
        "8-bit pixels": [say.show(find(row, "distilled_8bit")) for row in lines],
        "many (> 100)": [say.show_one(row.many) for row in lines],
        "medium": [say.show_one(row.medium) for row in lines],
        "few (< 20)": [say.show_one(row.few) for row in lines],
        "networks": [str(row.seeds) for row in lines],
        "epochs": [say.count(row.epochs) for row in lines],
        "experts": [str(row.experts) if row.experts else say.ABSENT for row in lines],
        "iterations": [say.count(row.iterations) for row in lines],
        "views": [say.count(row.views) for row in lines],
        "kB stored": [say.show_kilobytes(row.stored_bytes) for row in lines],
        "time": [say.show_time(row.wall_seconds) for row in lines],
        "command": [commands.refer(row) for row in lines],
    }
    epochs = set(row.epochs for row in lines if row.row in ("random_real", "distilled"))
    if len(epochs) == 1:
        columns.pop("epochs")
    return [*_caption(lines, epochs), "", *_markdown(columns), *_notes(notes),
            *commands.render()]  # fmt: skip


def _choose_lines(rows):
    """In order; a teacher that several variants share stands there once, by what they share."""
    lines = sorted((row for row in rows if row.row in (*say.TITLES, "distilled")), key=_rank)
    alike: dict[tuple, list[Number]] = {}
    for row in lines:
        whole = row.row in ("teacher", "full_real")
        key = (row.row, row.mean, row.std, row.epochs) if whole else row.place
        alike.setdefault(key, []).append(row)
    return [
        dataclasses.replace(found[0], variant=_shared_words([row.variant for row in found]))
        for found in alike.values()
    ]


def _shared_words(variants):
    """'two, network 2' of 'two, 200 epochs, network 2' and 'two, 600 epochs, network 2'."""
    several = [variant.split(", ") for variant in variants]
    return ", ".join(word for word in several[0] if all(word in words for words in several))


def _rank(row):
    kinds = ("random_real", "random_real_soft", "distilled", "teacher", "full_real")
    preset = PRESETS.get(row.method)
    selects = preset is not None and preset.section == "selection"
    place = list(PRESETS).index(row.method) if preset else len(PRESETS)
    return (kinds.index(row.row), not selects, place, measured.order(row))


def _name_lines(rows, by_variant):
    """Titles; of a study what was varied, with the method where there are several."""
    several = len({row.method for row in rows if row.is_set}) > 1
    titles = []
    for row in rows:
        shown = say.title(row)
        if by_variant and row.is_set and row.variant:
            shown = f"{say.name(row)}: {row.variant}" if several else row.variant
        titles.append(shown)
    return titles


def _finder(numbers):
    """(row, kind) -> the row of that kind of the same set, or None."""
    fields = ("run", "block", "study", "variant", "network", "data", "ipc", "width", "views")
    found = {(*(getattr(row, f) for f in fields), row.row): row for row in numbers}

    def find(row: Number, kind: str) -> Number | None:
        if row.row != "distilled":
            return None
        return found.get((*(getattr(row, f) for f in fields), kind))

    return find


def _show_start(row, find):
    """Of the set before the first iteration: at the set's rate, and at that of real images."""
    starts = [find(row, kind) for kind in ("initial", "initial_at_baseline_rate")]
    return " / ".join(say.show_beside(start) for start in starts if start is not None) or say.ABSENT


def _caption(rows, epochs):
    """What holds for all rows, in sentences."""
    labels = dict.fromkeys(_LABELS[row.labels] for row in rows if row.labels in _LABELS)
    words = [_BLOCKS[rows[0].block], f"Labels: {'; '.join(labels)}."]
    if len(epochs) == 1 and None not in epochs:
        words.append(f"The networks were trained for {epochs.pop():,} epochs.")
    if rows[0].judge != "test":
        words.append("Held-out training images judge, not the test set; every class counts alike.")
    words += [_PIXELS[row] for row in sorted({row.pixels for row in rows}) if row in _PIXELS]
    return [" ".join(words)]


def _notes(notes):
    shown = [f"- [{letter}] {note}" for letter, note in zip(_LETTERS, notes, strict=False)]
    return ["", *shown] if shown else []


def _markdown(columns: dict[str, list[str]]) -> list[str]:
    """A table without the columns that say nothing; the first to the left, the others right."""
    kept = {title: c for title, c in columns.items() if set(c) - {say.ABSENT}}
    lines = [" | ".join(kept), " | ".join(["---", *["---:"] * (len(kept) - 1)])]
    lines += [" | ".join(cells) for cells in zip(*kept.values(), strict=True)]
    return [f"| {line} |" for line in lines]


def _curve(numbers, words):
    """A line for each set, a column for each number of iterations; the last is the set itself."""
    rows = [
        r for r in measured.choose(numbers, {"study": "curve", **words}) if r.row == "iteration"
    ]
    beside = {(r.run, r.block, r.row): r for r in numbers if not r.network}
    commands, lines = Commands(), []
    steps = sorted({row.iterations for row in rows})
    for key in dict.fromkeys((row.run, row.block, row.variant) for row in rows):
        of_it = {r.iterations: r for r in rows if (r.run, r.block, r.variant) == key}
        start, end = (beside.get((*key[:2], kind)) for kind in ("initial", "distilled"))
        first = next(iter(of_it.values()))
        points = [say.show(of_it.get(step)) for step in steps]
        ended = say.show(end) + (f" ({end.iterations:,})" if end is not None else "")
        lines.append(
            [
                f"{say.title(first)}, {say.describe(first)}",
                say.show(start),
                *points,
                ended,
                commands.refer(first),
            ]
        )
    header = ["set", "0", *(f"{step:,}" for step in steps), "the set itself", "command"]
    columns = dict(zip(header, map(list, zip(*lines, strict=True)), strict=True)) if lines else {}
    return [*_markdown(columns), *commands.render()] if lines else []


def _networks(numbers, words):
    """A line for each network on which a set was used."""
    rows = [
        r for r in measured.choose(numbers, {"study": "networks", **words}) if r.row == "distilled"
    ]
    random = {(r.workdir, r.block, r.study, r.network, r.ipc): r for r in numbers
              if r.row == "random_real"}  # fmt: skip
    commands = Commands()
    beside = [random.get((r.workdir, r.block, r.study, r.network, r.ipc)) for r in rows]
    columns = {
        "set": [f"{say.name(row)}, {say.describe(row)}" for row in rows],
        "network": [row.network or "convnet" for row in rows],
        "distilled": [say.show(row) for row in rows],
        "random real images": [say.show(row) for row in beside],
        "over random": [
            say.ABSENT if there is None else f"{row.mean - there.mean:+.1f}"
            for row, there in zip(rows, beside, strict=True)
        ],
        "published": [say.show_published(row) for row in rows],
        "command": [commands.refer(row) for row in rows],
    }
    return [*_markdown(columns), *commands.render()] if rows else []


def _cost(numbers, words):
    """What each set took, and to which accuracy; the quickest first."""
    rows = [r for r in measured.choose(numbers, words) if r.row == "distilled" and r.wall_seconds]
    rows.sort(key=lambda row: (_setting(row), row.wall_seconds))
    commands = Commands()
    several = len({_setting(row) for row in rows}) > 1
    columns = {
        "data": [say.describe(row) if several else say.ABSENT for row in rows],
        "set": [say.title(row) for row in rows],
        "accuracy": [say.show(row) for row in rows],
        "experts or teachers": [say.show_time(row.expert_seconds) for row in rows],
        "the set": [say.show_time(row.wall_seconds) for row in rows],
        "TFLOP": [say.ABSENT if row.flops is None else f"{row.flops / 1e12:,.1f}" for row in rows],
        "iterations": [say.count(row.iterations) for row in rows],
        "command": [commands.refer(row) for row in rows],
    }
    head = [] if several or not rows else [f"{say.describe(rows[0])}.", ""]
    return [*head, *_markdown(columns), *commands.render()] if rows else []


def _summary(numbers, words):
    """The sets that rows=RUN,RUN names, in that order, beside what they are compared with."""
    find = _finder(numbers)
    chosen = measured.choose(numbers, {k: v for k, v in words.items() if k != "rows"})
    rows = []
    for run in words.get("rows", "").split(","):
        of_it = [r for r in chosen if r.run == run and r.row == "distilled" and not r.network]
        if not of_it:
            raise UserError(f"rows={run}: results.csv has no such set in this block")
        rows += of_it

    def shared(row, kind):
        return next((r for r in chosen if r.row == kind and (r.workdir, r.ipc, r.network) ==
                     (row.workdir, row.ipc, "")), None)  # fmt: skip

    def find_whole(row):
        """Of the same directory, or of another with the same data and networks."""
        if row.block == "ii":
            return shared(row, "teacher")
        alike = [r for r in chosen if r.row == "full_real" and not r.network and
                 (r.data, r.imbalance_factor, r.width) == (row.data, row.imbalance_factor,
                  row.width)]  # fmt: skip
        return shared(row, "full_real") or next(iter(alike), None)

    whole = [find_whole(row) for row in rows]
    columns = {
        "data": [say.describe(row) for row in rows],
        "method": [say.title(row) for row in rows],
        "accuracy": [say.show_beside(row) for row in rows],
        "before the first iteration": [_show_start(row, find) for row in rows],
        "random real": [say.show_beside(shared(row, "random_real")) for row in rows],
        PUBLISHED: [say.show_published(row) for row in rows],
        "teacher" if words["block"] == "ii" else "whole training set": [say.show(r) for r in whole],
        "time (experts + set)": [say.show_both_times(row) for row in rows],
    }
    return _markdown(columns)


def _plan(numbers, words):
    """What the methods cost at full size by the program's plan; the cheapest first."""
    del numbers, words
    with open(measured.FOLDER / "cost.csv", newline="", encoding="utf-8") as file:
        methods = list(csv.DictReader(file))
    methods.sort(key=lambda one: float(one["seconds_at_rate"]))

    def show(name):
        petas = [float(one[name]) / 1e15 for one in methods]
        return [f"{peta:,.1f}" if peta else say.ABSENT for peta in petas]

    hours = [float(one["seconds_at_rate"]) / 3600 for one in methods]
    return _markdown(
        {
            "method": [one["title"] for one in methods],
            "experts and teachers, PFLOP": show("shared_flop"),
            "the set and its evaluation, PFLOP": show("own_flop"),
            "hours at 10 TFLOP/s": [f"{hour:,.2f}" for hour in hours],
        }
    )


_KINDS: dict[str, Callable[[Sequence[Number], dict[str, str]], list[str]]] = {
    "cells": _cells,
    "study": _study,
    "curve": _curve,
    "networks": _networks,
    "cost": _cost,
    "summary": _summary,
    "plan": _plan,
}
