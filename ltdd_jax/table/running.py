"""Runs the cells of a table one after the other; what is finished is never done again."""

import json
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from ltdd_jax import literature
from ltdd_jax.errors import Interrupted, UserError
from ltdd_jax.runtime import files
from ltdd_jax.table import order
from ltdd_jax.table.cells import Job
from ltdd_jax.table.collecting import collect_lines
from ltdd_jax.table.comma_separated import render_csv
from ltdd_jax.table.latex import render_latex
from ltdd_jax.table.layout import lay_out
from ltdd_jax.table.markdown import render_markdown
from ltdd_jax.table.page import State, describe_states, render_page

FILES = ("table.csv", "table.md", "table.tex", "table.html")
_RECORDS = "cells"  # directory of what is known of each cell
_WORST_CASE = "an error of the program"

Run = Callable[[Job, str], None]  # (cell, its working directory)


class Book:
    """What is known of each cell, in files below the working directory.

    Args:
      root: working directory of the table.
    """

    def __init__(self, root: epath.Path):
        self.root = root

    def place(self, job: Job) -> str:
        """The working directory of the runs of a cell."""
        return str(self.root / job.directory)

    def find_report(self, job: Job, kind: str = "json") -> epath.Path:
        """Where the run of a cell leaves its report."""
        return self.root / job.directory / "sets" / job.name / f"report.{kind}"

    def read(self, job: Job) -> dict[str, Any] | None:
        """The report of a finished cell; None if it is not finished with these settings."""
        record = self._read_record(job)
        if not record or record["identity"] != job.identity or record["error"]:
            return None
        try:
            return json.loads(self.find_report(job).read_text())
        except (OSError, ValueError):
            return None  # the run makes it again

    def read_error(self, job: Job) -> str:
        """The sentence with which a cell failed when it ran last; "" if it did not."""
        record = self._read_record(job)
        return record["error"] if record and record["identity"] == job.identity else ""

    def write(self, job: Job, seconds: float, error: str, made: Iterable[str]) -> None:
        """Notes that a cell is finished and what it has made, or with which sentence it failed."""
        record = {"identity": job.identity, "seconds": seconds, "error": error}
        files.write_sealed(self._find_record(job), record | {"made": sorted(made)})

    def list_made(self, jobs: Sequence[Job]) -> frozenset[tuple[str, str]]:
        """(directory, name) of what finished cells have made and others share."""
        finished = [job for job in jobs if self.read(job) is not None]
        return frozenset(
            (job.directory, name) for job in finished for name in self._read_record(job)["made"]
        )

    def write_trace(self, job: Job, text: str) -> epath.Path:
        """Keeps a traceback; returns its file."""
        path = self.root / _RECORDS / f"{job.name}.traceback.txt"
        files.write_text(path, text)
        return path

    def _find_record(self, job):
        return self.root / _RECORDS / f"{job.name}.json"

    def _read_record(self, job):
        try:
            return files.read_sealed(self._find_record(job))
        except files.DamagedFileError:
            return None  # then the cell is looked at again; nothing finished is redone


def run_cells(
    jobs: Sequence[Job],
    chosen: Sequence[str],
    costs: Mapping[str, order.Cost],
    book: Book,
    title: str,
    run: Run,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Runs the cells that are not finished, the cheapest first, and writes the table after each.

    Args:
      jobs: all cells, in the order of the table.
      chosen: names of those that may run.
      costs: of the chosen ones that are not finished; one without a cost comes last.
      book: where everything lies.
      title: of the table.
      run: called with a cell and its working directory; leaves the report.
      say: takes progress, line by line.

    Returns:
      Cell -> sentence for each that failed.

    Raises:
      Interrupted: from `run`; all that is finished stays.
    """
    named = {job.name: job for job in jobs}
    works = plan_cells(jobs, chosen, costs, book)
    write_table(jobs, book, title)
    if len(works) < len(chosen):
        say(f"{len(chosen) - len(works)} of {len(chosen)} cells are finished already")
    failed, spent, done, left = {}, 0.0, 0.0, sum(works.values())
    for number, (name, work) in enumerate(works.items(), 1):
        shown = f", about {show_time(left * spent / done)} left for all" if done else ""
        say(f"== cell {number} of {len(works)}: {name}{shown}")
        start = time.monotonic()
        error = _run_cell(named[name], book, run)
        seconds = time.monotonic() - start
        left -= work
        if error:
            failed[name] = error
            say(f"cell {name} failed: {error}")
        else:
            spent, done = spent + seconds, done + work
        book.write(named[name], seconds, error, made=costs[name].shared if name in costs else ())
        write_table(jobs, book, title)
    return failed


def plan_cells(
    jobs: Sequence[Job], chosen: Sequence[str], costs: Mapping[str, order.Cost], book: Book
) -> dict[str, float]:
    """Cell -> work for each of the chosen ones that is not finished, in the order to run them."""
    places = {job.name: job.directory for job in jobs}
    waiting = [job.name for job in jobs if job.name in chosen and book.read(job) is None]
    known = {name: costs[name] for name in waiting if name in costs}
    made = book.list_made(jobs)
    cells = order.order_cells(known, places, made)
    works = dict(zip(cells, order.sum_left(cells, known, places, made), strict=True))
    return works | {name: order.OVERHEAD for name in waiting if name not in known}


def list_states(jobs: Sequence[Job], book: Book) -> list[State]:
    """How far each cell is."""
    states = []
    for job in jobs:
        if book.read(job) is not None:
            path = book.find_report(job, "html")
            link = path.relative_to(book.root).as_posix() if path.exists() else ""
            states.append(State(job.name, "finished", link))
        else:
            error = book.read_error(job)
            states.append(State(job.name, f"failed: {error}" if error else "waiting"))
    return states


def write_table(jobs: Sequence[Job], book: Book, title: str) -> None:
    """Writes the four files from the cells that are finished.

    Other programs that run other cells of the table may do so at the same moment.
    """
    reports = [(job, book.read(job)) for job in jobs]
    finished = [(job, report) for job, report in reports if report is not None]
    lines = collect_lines(finished, literature.find)
    page = lay_out(title, lines)
    contents = (
        render_csv(lines),
        render_markdown(page),
        render_latex(page),
        render_page(page, list_states(jobs, book)),
    )
    writer = uuid.uuid4().hex  # numbers of processes are the same on other machines
    for name, content in zip(FILES, contents, strict=True):
        files.write_text(book.root / name, content, writer=writer)


def describe_plan(
    jobs: Sequence[Job],
    chosen: Sequence[str],
    costs: Mapping[str, order.Cost],
    errors: Mapping[str, str],
    book: Book,
    speed: float | None,
) -> str:
    """What would run, in which order, what it costs and what is there.

    Args:
      jobs: all cells.
      chosen: names of those that may run.
      costs: of those that are not finished.
      errors: sentence for each cell whose cost could not be found out.
      book: where everything lies.
      speed: FLOP per second of this machine; None leaves times out.
    """
    named = {job.name: job for job in jobs}
    works = plan_cells(jobs, chosen, costs, book)
    lines = [f"{len(chosen)} cells -> {book.root}"]
    lines += [f"  {name}: finished" for name in chosen if name not in works]
    for name, work in works.items():
        if name in errors:
            lines.append(f"  {name}: cannot run: {errors[name]}")
            continue
        cost = costs[name]
        parts = [f"{'begun' if cost.has_begun else 'waiting'}, {_show_work(work, speed)}"]
        there = sorted(n for n in cost.shared if n in cost.there)
        parts += [f"{', '.join(there)} there"] if there else []
        lines.append(f"  {name}: {', '.join(parts)} -> {named[name].directory}")
    return "\n".join([*lines, f"  in all {_show_work(sum(works.values()), speed)}"])


def _run_cell(job, book, run) -> str:
    """ "" when the cell is finished, otherwise what went wrong as one sentence."""
    try:
        run(job, book.place(job))
    except Interrupted:
        raise
    except UserError as error:
        return " ".join(str(error).split())
    except Exception as error:
        path = book.write_trace(job, traceback.format_exc())
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        return f"{_WORST_CASE}, {type(error).__name__}: {reason} (traceback in {path})"
    if not book.find_report(job).exists():
        return f"{_WORST_CASE}: it has left no {book.find_report(job)}"
    return ""


def _show_work(work, speed):
    time_left = f", about {show_time(work / speed)}" if speed else ""
    return f"{work / 1e12:,.3g} TFLOP{time_left}"


def show_time(seconds: float) -> str:
    """'2.5 h', '12 min' or '40 s'."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def describe_end(jobs: Sequence[Job], book: Book, failed: Mapping[str, str]) -> str:
    """The last lines: how many are finished, a sentence for each that failed, where files lie."""
    lines = [describe_states(list_states(jobs, book))]
    lines += [f"  {name} failed: {text}" for name, text in failed.items()]
    page, others = book.root / FILES[-1], ", ".join(FILES[:-1])
    return "\n".join([*lines, f"table to look at: {page}, and {others} beside it"])
