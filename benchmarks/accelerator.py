"""Everything worth measuring on one accelerator, in pieces of under ten minutes.

    python benchmarks/accelerator.py --results benchmarks/results/h200 [--minutes 9] [--small]

Runs, in this order: the golden tests in float32; the distillation step, the expert epoch and the
evaluation at paper sizes for every form of the convolution and every precision; a profile of one
outer iteration; a timed slice of the CIFAR-10-LT IF 100, IPC 10 cell, projected to all of it.
Each piece is written as soon as it is done; the same command continues with what is missing, and
stops by itself when the time is up. `--small` shrinks every size to try the script on a CPU.
"""

import argparse
import collections
import gzip
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
FORMS = ("lax", "patches", "shifts")
PRECISIONS = ("float32", "tf32", "bfloat16")


def list_pieces(small: bool) -> dict[str, list[str]]:
    """Name -> command of every piece, in order of importance."""
    width, images, steps, epoch = (
        ("8", "10", "2", "256") if small else ("128", "100", "80", "12406")
    )
    group = "1,2" if small else "1,8,25"
    python = sys.executable
    pieces = {"golden": [python, "-m", "pytest", "-q", "-k", "golden", "tests"]}
    for form in FORMS:
        for precision in PRECISIONS:
            common = ["--form", form, "--precision", precision, "--json", "--repeats", "5"]
            tag = f"{form}-{precision}"
            for gradient in ("exact", "two_pass"):
                pieces[f"distill_step-{gradient}-{tag}"] = [
                    python, "benchmarks/distill_step.py", "--gradient", gradient,
                    "--width", width, "--images", images, "--steps", steps, *common,
                ]  # fmt: skip
            pieces[f"expert_epoch-{tag}"] = [
                python, "benchmarks/expert_epoch.py", "--width", width, "--experts", group,
                "--images", epoch, *common,
            ]  # fmt: skip
            pieces[f"evaluate-{tag}"] = [
                python, "benchmarks/evaluate.py", "--width", width, "--images", images, *common,
            ]  # fmt: skip
    pieces["profile"] = [
        python, "benchmarks/accelerator.py", "--profile", width, images, steps,
    ]  # fmt: skip
    return pieces


def run_piece(name: str, command: list[str], results: pathlib.Path, seconds: float) -> dict:
    """Runs one piece in its own process; its last output line is JSON, or the text is kept."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LTDD_TEST_PLATFORM": "default"}
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=seconds, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return {"piece": name, "command": command, "failed": f"longer than {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines() or [""]
    record = {"piece": name, "command": command, "wall_seconds": time.monotonic() - start}
    try:
        record |= json.loads(lines[-1])
    except ValueError:
        record["output"] = lines[-1]
    if done.returncode:
        record["failed"] = (lines[-1] + done.stderr[-500:])[-800:]
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    return record


def profile_step(width: int, images: int, steps: int) -> dict:
    """Kernels of one call by total time, and the share of wall time in which none ran."""
    import tempfile

    import distill_step
    import jax

    compiled, arguments, _ = distill_step.compile_ours(
        width=width, num_images=images, num_steps=steps, gradient="exact", form="auto",
        dtype="float32",
    )  # fmt: skip
    jax.block_until_ready(compiled(*arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            wall = time.perf_counter() - start
        trace = next(pathlib.Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    totals: collections.Counter = collections.Counter()
    counts: collections.Counter = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            totals[event["args"]["hlo_op"]] += event["dur"]
            counts[event["args"]["hlo_op"]] += 1
    busy = sum(totals.values()) / 1e6
    return {
        "wall_seconds_of_call": wall,
        "kernel_seconds": busy,
        "idle_fraction": max(0.0, 1 - busy / wall),
        "launches": sum(counts.values()),
        "kernels": [[name, us / 1e6, counts[name]] for name, us in totals.most_common(20)],
    }


def project_cell(results: pathlib.Path) -> dict | None:
    """Hours of the whole CIFAR-10-LT IF 100, IPC 10 cell from the measured pieces."""
    found = {}
    for path in results.glob("*.json"):
        record = json.loads(path.read_text())
        if "failed" not in record and "form" in record and record.get("precision") == "float32":
            found.setdefault(record["piece"].split("-")[0], []).append(record)
    if not {"distill_step", "expert_epoch", "evaluate"} <= found.keys():
        return None
    iteration = min(r["seconds"] for r in found["distill_step"])
    epoch = min(min(r["seconds_per_expert_epoch"].values()) for r in found["expert_epoch"])
    evaluation = min(r["seconds"] / r["num_epochs"] for r in found["evaluate"])
    seconds = {
        "experts": 100 * 100 * epoch,
        "classifier_experts": 100 * 10 * 4.03 * epoch / 6,  # 50 000 rows, forward only
        "distillation": 10_001 * iteration * (1 + 3 / 9),
        "evaluation": 1001 * evaluation,
    }
    return {"seconds": seconds, "minutes": sum(seconds.values()) / 60}


def write_table(results: pathlib.Path) -> None:
    """Collects all pieces in one markdown table."""
    lines = ["| piece | seconds | of peak | note |", "| --- | ---: | ---: | --- |"]
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text())
        seconds = record.get("seconds") or min(
            record.get("seconds_per_expert_epoch", {"": float("nan")}).values()
        )
        note = record.get("failed", record.get("output", ""))
        fraction = record.get("peak_fraction", float("nan"))
        lines.append(f"| {path.stem} | {seconds:.4g} | {fraction:.2f} | {note[:80]} |")
    projected = project_cell(results)
    if projected:
        lines += [
            "",
            f"Whole cell (100 experts, 10 001 iterations): {projected['minutes']:.0f} min",
        ]
        lines += [f"- {name}: {value:.0f} s" for name, value in projected["seconds"].items()]
    (results / "README.md").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="", help="pieces whose name contains this")
    parser.add_argument("--profile", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.profile:
        print(json.dumps(profile_step(*args.profile)))
        return
    if args.results is None:
        parser.error("--results is missing: the directory for the measurements")
    deadline = time.monotonic() + 60 * args.minutes
    for name, command in list_pieces(args.small).items():
        if args.only not in name or (args.results / f"{name}.json").exists():
            continue
        left = deadline - time.monotonic()
        if left < 20:
            print("time is up; run the same command again for the rest")
            break
        record = run_piece(name, command, args.results, left)
        print(name, record.get("failed") or record.get("seconds") or "done", flush=True)
    write_table(args.results)


if __name__ == "__main__":
    main()
