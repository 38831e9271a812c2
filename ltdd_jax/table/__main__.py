"""Command line of tables: `python -m ltdd_jax.table --config=configs/tables/NAME.py`."""

import argparse
import fnmatch
import re
import signal
import sys
from collections.abc import Mapping, Sequence

from ltdd_jax.errors import Interrupted, UserError
from ltdd_jax.table.cells import Job, load_table, make_jobs

_HELP = """Runs all cells of a table and writes it as CSV, markdown, LaTeX and an HTML page after
each. The same command continues after any interruption; nothing that is finished is done again.
--config.SECTION.FIELD=VALUE overrides a setting of all cells. Cells run one after the other, each
on all devices; to use several machines or devices at once, start the program several times with
--only=PATTERN for cells of different directories (--dry_run shows them)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
      0; 1 if a cell failed, 2 for a user's mistake, 130 for Ctrl-C and 143 for SIGTERM.
    """
    try:
        args, overrides = parse(sys.argv[1:] if argv is None else list(argv))
        table, home = load_table(args.config)
        jobs = make_jobs(table, home, overrides)
        chosen = _choose(jobs, args.only)
        return _run(args, table, jobs, chosen, frozenset(overrides))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as stopped:
        name = str(stopped) if isinstance(stopped, Interrupted) else "SIGINT"
        print(f"stopped by {name}: the same command continues from there", file=sys.stderr)
        return getattr(stopped, "exit_code", 128 + signal.SIGINT)


def run() -> None:
    """The console command `ltdd-table`."""
    sys.exit(main())


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The options, and the text of each field that is overridden.

    Raises:
      UserError: a word is no option.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ltdd_jax.table", description=_HELP, allow_abbrev=False
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE.py[:VARIANT]",
        help="table; the name of a packaged one, such as digits, does as well",
    )  # fmt: skip
    parser.add_argument("--workdir", default="", metavar="DIR", help="default: runs/<table name>")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells to run, e.g. '*dc'")
    parser.add_argument(
        "--dry_run", "--dry-run", action="store_true", help="only say what would be done"
    )
    overrides, rest = {}, []
    for argument in argv:
        found = re.fullmatch(r"--?config\.([^=\s]+)=(.*)", argument, re.DOTALL)
        if found:
            overrides[found[1]] = found[2]
        else:
            rest.append(argument)
    args, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UserError(
            f"unexpected argument {unknown[0]!r}: a field of all cells is set with "
            "--config.SECTION.FIELD=VALUE, and --help lists the options"
        )
    return args, overrides


def _choose(jobs: Sequence[Job], pattern: str) -> list[str]:
    names = [job.name for job in jobs]
    chosen = fnmatch.filter(names, pattern)
    if not chosen:
        raise UserError(f"--only={pattern} matches no cell; there are {', '.join(names)}")
    return chosen


def _run(args, table, jobs, chosen, keep) -> int:
    # Imported late so that --help and mistakes in the table are answered at once.
    from ltdd_jax import pipeline
    from ltdd_jax.runtime import files
    from ltdd_jax.table import running

    book = running.Book(files.resolve(args.workdir or f"runs/{table.name}"))
    waiting = [job for job in jobs if job.name in chosen and book.read(job) is None]
    costs, errors, speed = _estimate(pipeline, waiting, book, keep, timed=args.dry_run)
    if args.dry_run:
        print(running.describe_plan(jobs, chosen, costs, errors, book, speed))
        return 0

    def run_cell(job: Job, workdir: str) -> None:
        pipeline.run(job.config, workdir, set_name=job.name, keep=_list_kept(job, keep))

    with pipeline.acknowledge_signals():
        failed = running.run_cells(jobs, chosen, costs, book, table.title, run_cell, _say)
    _say(running.describe_end(jobs, book, failed))
    return 1 if failed else 0


def _estimate(pipeline, jobs: Sequence[Job], book, keep: frozenset[str], *, timed: bool):
    """Cost or sentence for each cell, and if asked the speed of this machine, FLOP per second."""
    costs, errors, speed = {}, {}, None
    for directory in dict.fromkeys(job.directory for job in jobs):
        sets = None
        for job in (job for job in jobs if job.directory == directory):
            try:
                sets = sets or pipeline.load_sets(job.config)
                costs[job.name] = pipeline.estimate_cost(
                    job.config, sets, book.place(job), job.name, _list_kept(job, keep)
                )
                if timed and speed is None:
                    speed = pipeline.measure_speed(job.config, sets)
            except UserError as error:
                errors[job.name] = str(error)
    return costs, errors, speed


def _list_kept(job: Job, keep: frozenset[str]) -> frozenset[str]:
    """Fields that were set by hand, which a budget leaves as they are."""
    fields: Mapping = job.cell.overrides
    return keep | frozenset(fields)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    run()
