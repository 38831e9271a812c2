"""The records of `compile_for.py` as a page of markdown: a table per topology.

python benchmarks/compiled_page.py RESULTS
"""

import json
import pathlib
import sys

_HEADER = (
    *("step", "precision", "form", "chips", "lowering, s", "compilation, s", "busy cores, s"),
    *("arguments, MB", "temporaries, MB", "of the chip's memory", "GFLOP", "Mcycles"),
    "exchanges",
)


def used_bytes(record: dict) -> int:
    """Bytes on each chip while the program runs; results in donated memory count once."""
    parts = ("argument_bytes", "output_bytes", "temp_bytes", "code_bytes")
    return sum(record[name] for name in parts) - record["alias_bytes"]


def say(record: dict) -> str:
    """One record as a line."""
    share = used_bytes(record) / record["memory_bytes"]
    return (
        f"{record['lower_seconds']:.1f} s to lower, {record['compile_seconds']:.1f} s to compile, "
        f"{record['temp_bytes'] / 1e6:.0f} MB of temporaries, {100 * share:.1f} % of the memory, "
        f"{record['estimated_cycles'] / 1e6:.1f} Mcycles, exchanges: {record['collectives'] or 0}"
    )


def render(results: pathlib.Path) -> str:
    """The whole page."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    lines = [
        "# Compiled for TPU chips, without a chip",
        "",
        "Written by `benchmarks/compile_for.py`; nothing here was run. FLOPs and cycles count the "
        "body of every loop once: one student step, forwards and backwards, of either phase; one "
        "step of an expert or of an evaluation network. The cycles are the compiler's own estimate "
        "and compare programs for the same chip only.",
    ]
    for topology in sorted({record["topology"] for record in records}):
        of_it = [record for record in records if record["topology"] == topology]
        lines += ["", f"## {topology}", "", *_origin(of_it), "", *_table(of_it)]
    return "\n".join(lines) + "\n"


def _origin(records):
    first = records[0]
    commits = sorted({record["commit"] for record in records})
    return [
        f"{first['device']}, {first['memory_bytes'] / 2**30:.0f} GiB each "
        f"({first['memory_source']}). Compiled on {first['processor']}, {first['threads']} "
        f"threads; JAX {first['jax']}, libtpu {first['libtpu']}, Python {first['python']}, commits "
        f"{', '.join(commits)}.",
        "",
        f"    python benchmarks/compile_for.py --topology {first['topology']} --results RESULTS",
    ]


def _table(records):
    rows = sorted(records, key=lambda r: (r["piece"], r["precision"], r["form"]))
    lines = [f"| {' | '.join(_HEADER)} |", f"|{' --- |' * 3}{' ---: |' * (len(_HEADER) - 3)}"]
    return lines + [f"| {' | '.join(_cells(record))} |" for record in rows]


def _cells(record):
    start = [record["piece"], record["precision"], record["form"], str(record["chips"])]
    start.append(f"{record['lower_seconds']:.1f}")
    if "failed" in record:
        return [*start, f"failed: {record['failed'][:120]}", *[""] * (len(_HEADER) - 6)]
    exchanges = ", ".join(f"{n} {kind}" for kind, n in record["collectives"].items())
    return [
        *start,
        f"{record['compile_seconds']:.0f}",
        f"{record['compile_core_seconds']:.0f}" if "compile_core_seconds" in record else "",
        f"{record['argument_bytes'] / 1e6:.1f}",
        f"{record['temp_bytes'] / 1e6:.0f}",
        f"{100 * used_bytes(record) / record['memory_bytes']:.1f} %",
        f"{record['flops'] / 1e9:.1f}",
        f"{record['estimated_cycles'] / 1e6:.2f}",
        exchanges or "none",
    ]


if __name__ == "__main__":
    print(render(pathlib.Path(sys.argv[1])))
