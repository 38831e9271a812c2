"""One run with variations of its settings, judged on held-out training images, as a table.

    python benchmarks/vary.py --config=configs/digits_lt.py:smoke --workdir=DIR --out=FILE.csv \\
        --common='--config.evaluation.num_seeds=3' --vary=base \\
        --vary='slow:--config.trajectory.image_lr=1.0' --vary='few:--config.trajectory.batch_size=5'

Every variation is a run of the program itself (`python -m ltdd_jax.main`) with
`--config.data.judge=held_out`: the test set is never read. All lie in one working directory as sets
of their own, so that experts and baselines of equal settings are made once. FILE (.csv or .json) is
written after each; the same command continues where it was stopped, and what is finished is not
run again.

Columns: accuracy of the distilled and of the initial set (every class counts the same, mean and
standard deviation over the evaluation networks, percent; `ii_` in block ii), the last logged
matching losses, wall seconds of the stage distill (compilation included) and the plan's
floating-point operations.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
JUDGED = "--config.data.judge=held_out"  # stands last, so that it holds
# Rows of the report, and starts of columns; those of block (ii) where it was evaluated.
ROWS = ("distilled", "initial", "ii_distilled", "ii_initial")
_UNITS = {"GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}
_COST = re.compile(r"(\w+) ([\d.e+-]+) ([GTP]FLOP)")
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of the program

Run = Callable[[str, Sequence[str]], tuple[int, str]]  # (name, arguments) -> exit code, output
Record = dict[str, Any]


def read_variations(texts: Sequence[str], common: str) -> dict[str, list[str]]:
    """Name -> arguments of the program, from texts such as 'slow:--config.trajectory.image_lr=1'.

    Args:
      texts: NAME or NAME:ARGUMENTS, as one would write them in a shell.
      common: arguments of all; those of a variation come after and win.

    Raises:
      ValueError: a name that is there twice or cannot name a set, or another kind of argument.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, own = text.partition(":")
        arguments = shlex.split(common) + shlex.split(own)
        if not re.fullmatch(r"\w[\w.-]{0,99}", name) or name in found:
            raise ValueError(f"--vary={text}: give every variation a name of its own, NAME:...")
        wrong = [argument for argument in arguments if not argument.startswith("--config.")]
        if wrong:
            raise ValueError(f"{wrong[0]!r} of {name} is no --config.SECTION.FIELD=VALUE")
        found[name] = arguments
    return found


def vary(
    variations: Mapping[str, Sequence[str]],
    base: Sequence[str],
    workdir: pathlib.Path,
    out: pathlib.Path,
    run: Run,
    say: Callable[[str], None] = print,
) -> dict[str, Record]:
    """Runs what is not finished and writes the table after each.

    Args:
      variations: from `read_variations`.
      base: arguments of all runs, such as the config.
      workdir: of all runs.
      out: the table; what stands in it is kept.
      run: runs the program; leaves a report in the working directory.
      say: takes progress, line by line.

    Returns:
      Name -> record of each line of the table.

    Raises:
      ValueError: a variation is in the table with other settings.
      KeyboardInterrupt: the program was stopped; all that is finished stands in the table.
    """
    records = read_table(out)
    settings = {n: shlex.join([*base, *own]) for n, own in variations.items()}
    for name in settings.keys() & records.keys():
        if records[name]["settings"] != settings[name]:
            raise ValueError(
                f"{name} is in {out} with other settings ({records[name]['settings']}): give it "
                "another name, or another --out and --workdir"
            )
    waiting = [name for name in variations if not _is_finished(records.get(name))]
    say(f"{len(waiting)} of {len(variations)} variations to run -> {out}")
    start = time.monotonic()
    for number, name in enumerate(waiting):
        spent = time.monotonic() - start
        left = f", about {_show(spent / number * (len(waiting) - number))} left" if number else ""
        say(f"== {number + 1} of {len(waiting)}: {name}{left}")
        code, output = run(name, [*base, f"--set={name}", *variations[name], JUDGED])
        if code in _STOPPED:
            raise KeyboardInterrupt
        record: Record = {"name": name, "settings": settings[name]}
        if code:
            record["error"] = f"exit code {code}"
        else:
            record |= read_result(workdir / "sets" / name) | read_flops(output)
        records[name] = record
        write_table(out, list(records.values()))
        say(describe(record))
    return records


def read_result(home: pathlib.Path) -> Record:
    """What a finished run left in the directory of its set.

    Raises:
      ValueError: the test set has judged it.
    """
    report = json.loads((home / "report.json").read_text(encoding="utf-8"))
    if not report["held_out"]:
        raise ValueError(f"{home} was judged on the test set")
    found: Record = {"held_out": report["held_out"]}
    for row in ROWS:
        summary = report["results"].get(row, {})
        found |= {f"{row}_{name}": summary[name] for name in ("mean", "std") if name in summary}
    lines = (home / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [e for e in map(json.loads, lines) if e["stage"] == "distill"]
    last = entries[-1] if entries else {}
    found |= {name: value for name, value in last.items() if name.endswith("loss")}
    return found | {"distill_seconds": report["seconds"].get("distill")}


def read_flops(output: str) -> Record:
    """flops_STAGE of each stage, from the plan that a run prints."""
    line = re.search(r"^ *cost: .*$", output, re.MULTILINE)
    found = _COST.findall(line[0]) if line else []
    return {f"flops_{stage}": float(value) * _UNITS[unit] for stage, value, unit in found}


def read_table(path: pathlib.Path) -> dict[str, Record]:
    """Name -> record of each line that is there; all values of a .csv are texts."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
    return {line["name"]: line for line in lines}


def write_table(path: pathlib.Path, records: Sequence[Record]) -> None:
    """Replaces the table as a whole: a reader sees the one of before or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            json.dump(records, file, indent=2)
        else:
            columns = dict.fromkeys(name for record in records for name in record)
            writer = csv.DictWriter(file, list(columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
    new.replace(path)


def describe(record: Record) -> str:
    """One line on a variation that has just run."""
    if not _is_finished(record):
        return f"{record['name']} failed ({record['error']}): what it said stands above"
    parts = [
        f"{row} {float(record[f'{row}_mean']):.1f} ± {float(record[f'{row}_std']):.1f}"
        for row in ROWS
        if f"{row}_mean" in record
    ]
    seconds = record["distill_seconds"] or 0
    return f"{record['name']}: {', '.join(parts)}; distilled in {_show(seconds)}"


def run_program(name: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Runs the program and shows what it says; its end is waited for, however one is stopped."""
    del name
    process = subprocess.Popen(
        [sys.executable, "-m", "ltdd_jax.main", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    except KeyboardInterrupt:  # the program has got it too, and saves
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.wait(), "".join(lines)


def _is_finished(record):
    return record is not None and not record.get("error")


def _show(seconds):
    return str(datetime.timedelta(seconds=round(seconds)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="FILE")
    parser.add_argument("--common", default="", metavar="ARGUMENTS", help="of all variations")
    parser.add_argument("--vary", action="append", required=True, metavar="NAME[:ARGUMENTS]")
    args = parser.parse_args(argv)
    base = [f"--config={args.config}", f"--workdir={args.workdir}"]
    try:
        variations = read_variations(args.vary, args.common)
        records = vary(variations, base, args.workdir, args.out, run_program)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command continues from there", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0 if all(_is_finished(records[name]) for name in variations) else 1


if __name__ == "__main__":
    sys.exit(main())
