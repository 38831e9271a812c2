"""Sheets: what a table says, the same for markdown, LaTeX and HTML."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from ltdd_jax.evaluate import metrics
from ltdd_jax.table.collecting import (
    BESIDE,
    DISTILLED,
    FIRST,
    FULL,
    RANDOM,
    RANDOM_SOFT,
    SECOND,
    Line,
)

ABSENT = "–"  # noqa: RUF001
_DATA = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "Digits",
    "fashion_mnist": "Fashion-MNIST",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenet": "ImageNet",
}
_BLOCKS = {
    FIRST: "Block (i), labels stored with the images",
    SECOND: "Block (ii), labels of a teacher for every view",
}
_REGIMES = {
    "H": "H, the class alone",
    "S1": "S1, one soft vector per image",
    "SE": "SE, stored labels of views of each image",
    "ST": "ST, the teacher labels every augmented batch",
}
_SHOWN = (RANDOM, RANDOM_SOFT, DISTILLED, FULL)  # other rows of the reports stand in the CSV file


@dataclasses.dataclass(frozen=True)
class Entry:
    """One field of a sheet.

    Attributes:
      text: plain.
      marks: of notes and references.
    """

    text: str
    marks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One table: a block of one setting.

    Attributes:
      name: for labels, such as "cifar10-if100-ipc10-seed0-i".
      title: data, imbalance factor, images per class, and the block.
      caption: sentences that hold for all rows.
      header: of the columns.
      rows: the first holds random real images.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


@dataclasses.dataclass(frozen=True)
class Page:
    """All sheets with what their marks stand for.

    Attributes:
      title: of the table.
      sheets: block (i) of every setting, then block (ii).
      notes: mark -> clause on a difference of the set-up.
      references: mark -> citation of published numbers.
    """

    title: str
    sheets: tuple[Sheet, ...]
    notes: Mapping[str, str]
    references: Mapping[str, str]


class _Marks:
    """Hands out a mark for every new text."""

    def __init__(self, write: Callable[[int], str]):
        self._write = write
        self._known: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """The mark of a text, the same for the same text."""
        return self._known.setdefault(text, self._write(len(self._known)))

    def legend(self) -> dict[str, str]:
        """mark -> text, in the order in which they were handed out."""
        return {mark: text for text, mark in self._known.items()}


def lay_out(title: str, lines: Sequence[Line]) -> Page:
    """Sheets from the lines of a table.

    Args:
      title: of the table.
      lines: of `collecting.collect_lines`.
    """
    notes, references = _Marks(_letter), _Marks(lambda number: str(number + 1))
    shown = [line for line in lines if line.kind in _SHOWN]
    groups = dict.fromkeys((line.block, line.setting) for line in shown)
    several_seeds = len({line.setting[-1] for line in shown}) > 1
    sheets = []
    for block, setting in groups:
        rows = [line for line in shown if (line.block, line.setting) == (block, setting)]
        where = describe_setting(setting, several_seeds)
        header, entries = _fill(rows, notes, references)
        sheets.append(
            Sheet(
                name=_name_sheet(block, setting),
                title=f"{where}. {_BLOCKS[block]}",
                caption=_describe(rows),
                header=header,
                rows=entries,
            )
        )
    return Page(title, tuple(sheets), notes.legend(), references.legend())


def describe_setting(setting: tuple[str, bool, float, int, int], with_seed: bool = False) -> str:
    """'CIFAR-10-LT, imbalance factor 100, 10 images per class'."""
    source, is_cut, factor, ipc, seed = setting
    name = _DATA.get(source, source)
    parts = [f"{name}-LT, imbalance factor {factor:g}" if is_cut else name]
    parts.append(f"{ipc} image{'s' * (ipc != 1)} per class")
    return ", ".join([*parts, *([f"seed {seed}"] if with_seed else [])])


def _name_sheet(block, setting):
    source, is_cut, factor, ipc, seed = setting
    name = re.sub(r"\W+", "-", source)
    return "-".join([name, *([f"if{factor:g}"] if is_cut else []), f"ipc{ipc}-seed{seed}", block])


def show_mean(mean: float, std: float | None) -> str:
    """'53.4 ± 0.1'."""
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def _fill(rows: Sequence[Line], notes: _Marks, references: _Marks):
    """Header and entries, without empty columns and those that the caption speaks for."""
    columns: dict[str, list[Entry]] = {
        "trained on": [Entry(row.title) for row in rows],
        "labels": [Entry(_text(row, "labels")) for row in rows],
        "ours": [Entry(show_mean(row.summary["mean"], row.summary["std"])) for row in rows],
        "published": [_show_published(row, notes, references) for row in rows],
        **{title: [_show_beside(row, name) for row in rows] for name, title in BESIDE.items()},
        "over random": [Entry(_signed(row.over_random)) for row in rows],
        **{title: [Entry(_number(row, name)) for row in rows] for name, title in _groups().items()},
        "images stored / seen": [Entry(_images(row)) for row in rows],
        "kB of images / labels / teacher": [Entry(_bytes(row)) for row in rows],
        "updates": [Entry(_count(row, "updates")) for row in rows],
        "seeds": [Entry(str(len(row.summary["per_seed"]))) for row in rows],
        "augmentation": [Entry(_text(row, "augmentation")) for row in rows],
        "student": [Entry(_text(row, "student")) for row in rows],
        "selection": [Entry(_text(row, "selection")) for row in rows],
    }
    said = _common(rows)
    kept = {
        title: column
        for title, column in columns.items()
        if title not in said and any(entry.text != ABSENT for entry in column)
    }
    return tuple(kept), tuple(zip(*kept.values(), strict=True))


def _common(rows: Sequence[Line]) -> dict[str, str]:
    """What all rows have in common: column -> its text, "" where nothing is known."""
    found = {}
    for name in ("augmentation", "student", "selection"):
        texts = {_text(row, name) for row in rows}
        if len(texts) == 1:
            found[name] = next(iter(texts)).replace(ABSENT, "")
    seeds = {len(row.summary["per_seed"]) for row in rows}
    return found | ({"seeds": str(seeds.pop())} if len(seeds) == 1 else {})


def _describe(rows: Sequence[Line]) -> str:
    common = _common(rows)
    networks = f"{common['seeds']} " if "seeds" in common else ""
    judges = "the test set"
    if rows[0].judge == "held_out":
        judges = (
            "held-out training images, every class counting the same (the test set was not read)"
        )
    sentences = [
        f"Top-1 accuracy in % on {judges}, mean ± standard deviation over {networks}networks "
        "trained from scratch; the last iterate, nothing was chosen on the test set; groups by "
        "training images per class."
    ]
    for name in ("student", "augmentation", "selection"):
        if common.get(name):
            sentences.append(f"{name.capitalize()}: {common[name]}.")
    teachers = sorted({f"{row.teacher:.1f} %" for row in rows if row.teacher is not None})
    if teachers:
        sentences.append(f"The teacher itself reaches {', '.join(teachers)}.")
    used = [_REGIMES[r] for r in _REGIMES if any(r == _text(row, "labels") for row in rows)]
    if used:
        sentences.append(f"Labels: {'; '.join(used)}.")
    return " ".join(sentences)


def _show_published(row: Line, notes: _Marks, references: _Marks) -> Entry:
    if row.published is None:
        return Entry(ABSENT)
    marks = (
        references.mark(row.published.source),
        *(notes.mark(clause) for clause in row.differences),
    )
    return Entry(show_mean(row.published.mean, row.published.std), marks)


def _show_beside(row: Line, name: str) -> Entry:
    found = row.beside.get(name)
    return Entry(ABSENT if found is None else show_mean(found["mean"], found["std"]))


def _groups() -> dict[str, str]:
    return {
        "many": f"many (> {metrics.MANY_ABOVE})",
        "medium": "medium",
        "few": f"few (< {metrics.FEW_BELOW})",
    }


def _text(row, name):
    return str(row.summary.get(name) or ABSENT)


def _number(row, name):
    value = row.summary.get(name)
    return ABSENT if value is None else f"{value:.1f}"


def _signed(value):
    return ABSENT if value is None else f"{value:+.1f}"


def _count(row, name):
    return f"{row.summary[name]:,}" if name in row.summary else ABSENT


def _images(row):
    stored = row.summary.get("images_stored", row.summary.get("images"))
    seen = row.summary.get("images_seen", stored)
    return ABSENT if stored is None else f"{stored:,} / {seen:,}"


def _bytes(row):
    stored = row.summary.get("stored_bytes")
    if not stored:
        return ABSENT
    parts = (stored.get(name, 0) for name in ("images", "labels", "teacher"))
    return " / ".join(f"{part / 1000:,.1f}" if part else "0" for part in parts)


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
