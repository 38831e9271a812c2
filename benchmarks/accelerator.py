"""Everything worth measuring on one accelerator, in pieces of under ten minutes.

    python benchmarks/accelerator.py --results benchmarks/results/h200 [--minutes 9]
        [--data PICTURES.tar] [--small]

Runs, in this order: the peak of every precision; a timed slice of the CIFAR-10-LT IF 100, IPC 10
cell, projected to all of it (`cell.py`); the golden tests; the convolution alone; the distillation
step, the expert epoch and the evaluation at paper sizes for every form of the convolution and every
precision; large synthetic sets; a profile of one outer iteration. Each piece is a process of its
own and is written as soon as it is done; the same command continues with what is missing, and
stops by itself when the time is up. A piece that failed is written too: delete its file to try it
again. `--small` shrinks every size, and leaves most forms out, to try the script on a CPU.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import table

ROOT = pathlib.Path(__file__).resolve().parents[1]
FORMS = ("lax", "patches", "shifts")
PRECISIONS = ("float32", "tf32", "bfloat16")
_SHORTEST = 20.0  # seconds in which no piece ends
_WHOLE = 0.8  # share of the time that a piece must have had to be called too slow


@dataclasses.dataclass(frozen=True)
class Piece:
    """A script with its arguments, and the seconds below which it need not be started."""

    arguments: tuple[str, ...]
    least_seconds: float = _SHORTEST


def script(name: str, *arguments: str, least: float = _SHORTEST) -> Piece:
    """One of the scripts beside this one, asked for a line of JSON."""
    return Piece((f"benchmarks/{name}.py", *arguments, "--json"), least)


def list_pieces(small: bool, data: str) -> dict[str, Piece]:
    """Name -> piece, in order of importance; the first word of a name is its kind."""
    width, images, steps, epoch = (
        ("8", "10", "2", "256") if small else ("128", "100", "80", "12406")
    )
    precisions = PRECISIONS[:1] if small else PRECISIONS
    pairs = [(form, precision) for precision in PRECISIONS for form in FORMS]
    if small:
        pairs = [("lax", "float32"), ("patches", "bfloat16")]
    pieces = {f"peak-{p}": script("timing", "--precision", p) for p in PRECISIONS}
    of_cell = (("--data", data) if data else ()) + (("--small",) if small else ())
    for precision in precisions:
        pieces[f"cell-{precision}"] = script(
            "cell", "--precision", precision, *of_cell, least=30 if small else 180
        )
    golden = "golden and losses" if small else "golden"
    pieces["golden"] = Piece(("-m", "pytest", "-q", "-k", golden, "tests"), 30 if small else 90)
    for precision in precisions:
        pieces[f"convolution-{precision}"] = script(
            "convolution", "--width", width, "--images", images, "--precision", precision
        )
    for form, precision in pairs:
        common = ("--form", form, "--precision", precision, "--width", width)
        tag = f"{form}-{precision}"
        pieces[f"distill_step_exact-{tag}"] = script(
            "distill_step", "--gradient", "exact", "--images", images, "--steps", steps, *common
        )
        pieces[f"expert_epoch-{tag}"] = script(
            "expert_epoch", "--experts", "1,2" if small else "1,8,25", "--images", epoch, *common
        )
        pieces[f"evaluate-{tag}"] = script("evaluate", "--images", images, *common)
    for precision in precisions:
        of_sets = ("--batch", "50", "--steps", "0", "--cases", "100x10,100x50") if small else ()
        pieces[f"large_sets-{precision}"] = script(
            "large_sets", "--width", width, "--precision", precision, *of_sets, least=60
        )
    pieces["profile-float32"] = script("profile_step", width, images, steps)
    for form, precision in pairs:
        pieces[f"distill_step_two_pass-{form}-{precision}"] = script(
            *("distill_step", "--gradient", "two_pass", "--images", images, "--steps", steps),
            *("--form", form, "--precision", precision, "--width", width),
        )
    return pieces


def run_process(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: stopped after `seconds`, with all it started), output and errors."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTDD_TEST_PLATFORM": "default"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().strip())
    return code, *texts


def run_piece(name: str, piece: Piece, seconds: float, whole: bool) -> dict | None:
    """The record of one piece: its last output line is JSON, or the text is kept.

    Returns:
      None if it was stopped for lack of time and had not the `whole` of it.
    """
    start = time.monotonic()
    code, output, errors = run_process([sys.executable, *piece.arguments], seconds)
    record = {
        "piece": name,
        "command": ["python", *piece.arguments],
        "wall_seconds": time.monotonic() - start,
    }
    if code is None:
        return record | {"failed": f"longer than {seconds:.0f} s"} if whole else None
    last = (output.splitlines() or [""])[-1]
    try:
        record |= json.loads(last)
    except (ValueError, TypeError):
        record["output"] = last
    if code:
        record["failed"] = (last[:300] + " " + errors[-500:]).strip() or f"exit code {code}"
    return record


def run_missing(pieces: dict[str, Piece], results: pathlib.Path, minutes: float) -> None:
    """Runs what has no file in `results` yet and fits into the time."""
    deadline = time.monotonic() + 60 * minutes
    for name, piece in pieces.items():
        path = results / f"{name}.json"
        left = deadline - time.monotonic()
        if path.exists() or left < min(piece.least_seconds, _WHOLE * 60 * minutes):
            continue
        record = run_piece(name, piece, left, left > _WHOLE * 60 * minutes)
        if record is None:
            print(f"{name}: not finished in {left:.0f} s, to be started again", flush=True)
            continue
        path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        state = record.get("failed") or f"{record['wall_seconds']:.0f} s"
        print(f"{name}: {state}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", default="", help="long-tailed pictures for the slice")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="", help="pieces whose name contains this")
    args = parser.parse_args()
    data = str(pathlib.Path(args.data).resolve()) if args.data else ""
    args.results.mkdir(parents=True, exist_ok=True)
    pieces = list_pieces(args.small, data)
    chosen = {name: piece for name, piece in pieces.items() if args.only in name}
    run_missing(chosen, args.results, args.minutes)
    missing = [name for name in chosen if not (args.results / f"{name}.json").exists()]
    if missing:
        print(f"the time is up, {len(missing)} pieces are missing; give the same command again")
    page = table.render(table.read_records(args.results))
    (args.results / "README.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
