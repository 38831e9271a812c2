"""Kernels of one distillation phase by total time, and the share of the time in which none ran.

    python benchmarks/profile_step.py 128 100 80 --json     # width, images, student steps

Exact gradient, float32, default form of the convolution.
"""

import argparse
import collections
import gzip
import json
import pathlib
import tempfile
import time

import distill_step
import jax
import timing

_SHOWN = 20


def read_kernels(events: list[dict]) -> list[dict]:
    """The events during which a kernel ran, without those that contain others.

    On a GPU these are what its streams show, on a TPU its row of operations; the rows that
    summarise them (modules, steps, name scopes) are left out. On a CPU they are the operations of
    the program, of which loops and calls contain others.
    """
    names = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event.get("ph") == "M" and event["name"] in names:
            row = (event["pid"], event.get("tid") if event["name"] == "thread_name" else None)
            names[event["name"]][row] = event["args"]["name"]
    on_device = any(name.startswith("/device:") for name in names["process_name"].values())

    def is_kernel(event):
        process = names["process_name"].get((event["pid"], None), "")
        thread = names["thread_name"].get((event["pid"], event.get("tid")), "")
        if on_device:
            return process.startswith("/device:") and thread.startswith(("Stream", "XLA Ops"))
        return "hlo_op" in event.get("args", {})

    rows = collections.defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and is_kernel(event):
            rows[event["pid"], event.get("tid")].append(event)
    return [event for row in rows.values() for event in _keep_innermost(row)]


def _keep_innermost(events):
    """Events of one row that contain no other: the next to begin begins after their end."""
    ordered = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    following = [*(event["ts"] for event in ordered[1:]), float("inf")]
    return [
        event
        for event, begin in zip(ordered, following, strict=True)
        if begin >= event["ts"] + event["dur"]
    ]


def covered_seconds(events: list[dict]) -> float:
    """Time in which at least one event ran; events of several rows may overlap."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda event: event["ts"]):
        last = event["ts"] + event["dur"]
        total += max(0.0, last - max(event["ts"], end))
        end = max(end, last)
    return total / 1e6


def trace_call(call) -> tuple[float, list[dict]]:
    """Wall seconds of `call` and the events of its trace."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            call()
            wall = time.perf_counter() - start
        trace = next(pathlib.Path(folder).rglob("*.trace.json.gz"))
        return wall, json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("width", type=int)
    parser.add_argument("images", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    dtype = timing.set_precision("float32")
    compiled, arguments, _ = distill_step.compile_ours(
        width=args.width,
        num_images=args.images,
        num_steps=args.steps,
        gradient="exact",
        form="auto",
        dtype=dtype,
    )

    def call():
        jax.block_until_ready(compiled(*arguments))

    call()
    wall, events = trace_call(call)
    kernels = read_kernels(events)
    totals, counts = collections.Counter(), collections.Counter()
    for event in kernels:
        name = event.get("args", {}).get("hlo_op", event["name"])
        totals[name] += event["dur"] / 1e6
        counts[name] += 1
    busy = covered_seconds(kernels)
    result = {
        "benchmark": "profile",
        "width": args.width,
        "images": args.images,
        "steps": args.steps,
        "seconds": wall,
        "busy_seconds": busy,
        "idle_fraction": max(0.0, 1 - busy / wall),
        "launches": len(kernels),
        "kernels": [[name, total, counts[name]] for name, total in totals.most_common(_SHOWN)],
        **timing.describe_machine(),
    }
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
