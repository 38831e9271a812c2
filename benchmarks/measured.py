"""The files of numbers in docs/results: a row per number, read, checked, added to and written.

`results.csv` has a row for every accuracy that was measured, `per_class.csv` the accuracies by
class of some of them. Tables and pictures are made of these two by `render_results.py`.
"""

import csv
import dataclasses
import io
import pathlib
import re
import types
import typing
from collections.abc import Iterable, Sequence

from ltdd_jax.errors import UserError

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results"
RESULTS, PER_CLASS = FOLDER / "results.csv", FOLDER / "per_class.csv"
MIN_SEEDS = 5
BLOCKS = ("i", "ii")
# What a network was trained on, in the order of the tables.
ROWS = (
    "random_real", "random_real_soft", "distilled", "distilled_hard", "distilled_8bit", "initial",
    "initial_at_baseline_rate", "iteration", "teacher", "full_real",
)  # fmt: skip
_DECIMALS = 3
FILTERS = ("data", "imbalance_factor", "ipc", "width", "block", "study")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    """One row of results.csv: an accuracy and how it came about. None and "" are empty fields."""

    data: str  # source of the training images, without "-LT"
    imbalance_factor: float | None  # largest over smallest class
    ipc: int  # images per class of the set
    width: int  # of the ConvNet that was used for everything
    block: str  # "i" (labels stored with the images) or "ii" (a teacher's labels of views)
    # H (a class), S1 (one soft vector), SE (one for each stored view), ST (live teacher)
    labels: str
    method: str  # name on the command line; "random", "teacher" and "full" for those rows
    mean: float  # top-1 accuracy on the balanced test set, percent, over networks
    std: float  # over networks, with N in the denominator
    seeds: int  # networks
    experts: int | None  # that the method had; 0 for methods without
    iterations: int | None  # outer ones that made the set; of a point of a curve, those up to it
    stored_bytes: int | None  # of images, labels and teacher together
    published: float | None  # number of the literature for this cell at its own width, percent
    command: str  # that makes the number again
    commit: str  # of the program that made it
    row: str  # what the networks were trained on, one of `ROWS`
    run: str  # name of the directory and, for rows that belong to one set, "/" and its name
    study: str = ""  # the comparison that the row belongs to; "" is the common protocol
    # what sets it apart in its study or from another set of the same method, in words
    variant: str = ""
    network: str = ""  # another network than the ConvNet, or another optimiser
    views: int | None = None  # stored views of each image, for labels SE
    epochs: int | None = None  # of the networks' training, all of them
    rate: float | None = None  # their learning rate
    # percentage points above random real images with labels of the same kind
    over_random: float | None = None
    many: float | None = None  # accuracy of the classes with more than 100 training images
    medium: float | None = None  # of those with 20 to 100
    few: float | None = None  # of those with fewer than 20
    wall_seconds: float | None = None  # that the making of the set took, on `machine`
    # that the training of experts and teachers took, where this run did it
    expert_seconds: float | None = None
    # additions and multiplications of the making of the set, experts included
    flops: float | None = None
    pixels: str = ""  # "original", "jpeg" (a compressed copy of the data)
    machine: str = ""  # where it was measured
    date: str = ""  # of the report
    published_std: float | None = None  # as printed
    published_source: str = ""  # the paper whose table it stands in
    note: str = ""  # what a reader has to know
    # "test", or "held_out" where training images judged, as a study may choose by these
    judge: str = "test"

    @property
    def place(self) -> tuple:
        """What tells this row from all others."""
        return (self.run, self.row, self.block, self.study, self.variant, self.network, self.data,
                self.imbalance_factor, self.ipc, self.width, self.labels, self.method,
                self.iterations, self.epochs, self.views)  # fmt: skip

    @property
    def workdir(self) -> str:
        """The directory's name: rows of one directory share their random real images."""
        return self.run.partition("/")[0]

    @property
    def is_set(self) -> bool:
        """Whether a set was made for it, in place of what all sets are compared with."""
        return self.row not in ("random_real", "random_real_soft", "teacher", "full_real")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """One row of per_class.csv; the first fields say to which row of results.csv it belongs.

    Attributes:
      name: of the class.
      training_images: of that class in the long-tailed training set.
      accuracy: percent, mean over networks.
    """

    run: str
    row: str
    block: str
    study: str
    ipc: int
    iterations: int | None
    name: str
    training_images: int
    accuracy: float

    @property
    def of(self) -> tuple:
        """What it shares with its row of results.csv."""
        return (self.run, self.row, self.block, self.study, self.ipc, self.iterations)


def is_of(number: Number, accuracy: ClassAccuracy) -> bool:
    """Whether `accuracy` belongs to that row."""
    return accuracy.of == tuple(getattr(number, name) for name in
                                ("run", "row", "block", "study", "ipc", "iterations"))  # fmt: skip


def read(path: pathlib.Path, kind: type = Number) -> list:
    """The rows of a file; [] if there is none.

    Args:
      path: of the file.
      kind: `Number` or `ClassAccuracy`.

    Raises:
      UserError: other columns, or a field that is no number where one must stand.
    """
    if not path.exists():
        return []
    records = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    columns = [field.name for field in dataclasses.fields(kind)]
    if records[0] != columns:
        odd = [name for name in records[0] if name not in columns]
        wrong = f"unknown column {odd[0]}" if odd else "its columns are missing or in another order"
        raise UserError(f"{path.name}: {wrong}; the first line must be {','.join(columns)}")
    hints = typing.get_type_hints(kind)
    rows = []
    for line, record in enumerate(records[1:], 2):
        if len(record) != len(columns):
            raise UserError(f"{path.name}, line {line}: {len(record)} fields, not {len(columns)}")
        named = zip(columns, record, strict=True)
        rows.append(kind(**{n: _parse(hints[n], n, text, path, line) for n, text in named}))
    return rows


def _parse(hint, name, text, path, line):
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if not text and type(None) in options:
        return None
    try:
        return options[0](text)
    except ValueError as error:
        raise UserError(f"{path.name}, line {line}: {name} is {text!r}, not a number") from error


def render(rows: Sequence, kind: type = Number) -> str:
    """The content of a file: a header and a line for each row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(kind))
    writer.writerows([_show(value) for value in dataclasses.astuple(row)] for row in rows)
    return buffer.getvalue()


def _show(value):
    if isinstance(value, float):
        shown = round(value, _DECIMALS) if abs(value) >= 1 else float(f"{value:.4g}")
        return f"{shown:.15g}"
    return "" if value is None else value


def check(rows: Iterable[Number]) -> None:
    """Says what is wrong with a number before it is written or shown.

    Raises:
      UserError: no command, no commit, too few networks without a note, an unknown block or row,
        another judge than the test set outside of a study, or two rows for the same thing.
    """
    seen = set()
    for row in rows:
        where = f"results.csv, {row.run} {row.row} (block {row.block})"
        if not row.command or not row.commit:
            raise UserError(f"{where}: {'commit' if row.command else 'command'} is empty")
        if row.block not in BLOCKS or row.row not in ROWS:
            raise UserError(f"{where}: block must be i or ii and row one of {', '.join(ROWS)}")
        if row.judge != "test" and not row.study:
            raise UserError(f"{where}: held-out training images judged it: give --study=NAME")
        if row.seeds < MIN_SEEDS and not row.note:
            raise UserError(
                f"{where}: {row.seeds} networks, fewer than {MIN_SEEDS}: evaluate with "
                f"--config.evaluation.num_seeds={MIN_SEEDS}, or say why with --note"
            )
        if row.place in seen:
            raise UserError(f"{where} stands there twice; delete one of the two lines")
        seen.add(row.place)


def add(old: Sequence[Number], new: Sequence[Number], *, replace: bool = False) -> list[Number]:
    """Old and new rows together, in the order of the file.

    A row that is there already with the same numbers stays as it is, with its command and commit.

    Args:
      old: rows of the file.
      new: rows of a run.
      replace: whether rows of the same place with other numbers give way.

    Raises:
      UserError: a row is there with other numbers.
    """
    placed = {row.place: row for row in old}
    for row in new:
        there = placed.get(row.place)
        if there is not None and not replace:
            if _result(there) != _result(row):
                raise UserError(
                    f"{row.run} {row.row} (block {row.block}) is in results.csv with "
                    f"{there.mean:.2f} ± {there.std:.2f} of {there.seeds} networks, and now has "
                    f"{row.mean:.2f} ± {row.std:.2f} of {row.seeds}: give --replace, or another "
                    "--run or --variant"
                )
            continue
        placed[row.place] = row
    return sorted(placed.values(), key=order)


def _result(row):
    return (_show(row.mean), _show(row.std), row.seeds)


def order(row: Number) -> tuple:
    """Where a row stands in the file: numbers in words count as numbers."""
    numbers = (row.imbalance_factor or 0.0, row.ipc, row.width)
    words = [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", row.variant)]
    natural = [(isinstance(x, str), x) for x in words]
    return (row.data, *numbers, row.block, row.study, row.workdir, row.run.partition("/")[2],
            natural, row.network, ROWS.index(row.row), row.iterations or 0, row.views or 0,
            row.epochs or 0, row.labels, row.method)  # fmt: skip


def choose(numbers: Sequence[Number], words: dict[str, str]) -> list[Number]:
    """The rows that options name; without study=NAME those of no study."""
    wanted = {"study": "", **{name: words[name] for name in FILTERS if name in words}}
    runs = words["run"].split(",") if "run" in words else None
    return [
        row
        for row in numbers
        if all(_word(getattr(row, name)) == text for name, text in wanted.items())
        and (runs is None or row.run in runs or row.workdir in runs)
    ]


def _word(value):
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
