"""The records of `accelerator.py` as a page of markdown: a section per kind, a row per case.

python benchmarks/table.py RESULTS
"""

import json
import pathlib
import sys

_MEGA, _GIGA = 1e6, 1e9
_STAGES = (
    "representation experts",
    "classifier experts",
    "distill",
    "evaluate distilled",
    "evaluate random_real",
    "evaluate full_real",
    "start, compilation, saving, testing",
)


def read_records(results: pathlib.Path) -> dict[str, dict]:
    """Name of the piece -> record, from the files of a directory of results."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}


def render(records: dict[str, dict]) -> str:
    """The whole page."""
    good = {name: record for name, record in records.items() if "failed" not in record}
    lines = _machine(good.values())
    for kind, (title, section) in _SECTIONS.items():
        of_kind = [record for name, record in good.items() if name.split("-")[0] == kind]
        if of_kind:
            order = sorted(of_kind, key=lambda r: (_rank(r), r.get("form", "")))
            lines += ["", f"## {title}", "", *section(order)]
    failed = {name: record["failed"] for name, record in records.items() if "failed" in record}
    if failed:
        lines += ["", "## Failed", ""]
        lines += [f"- `{name}`: {' '.join(why.split())[-300:]}" for name, why in failed.items()]
    return "\n".join(lines) + "\n"


def _rank(record):
    order = ("float32", "tf32", "bfloat16")
    return order.index(record["precision"]) if record.get("precision") in order else len(order)


def _machine(records):
    found = next((r for r in records if "device" in r), None)
    if found is None:
        return ["# Measurements", "", "No piece is done yet."]
    return [
        "# Measurements",
        "",
        f"{found['platform']}: {found['device']}; host {found['processor']}, {found['threads']} "
        f"threads; JAX {found['jax']}, Python {found['python']}, ltdd_jax {found['ltdd_jax']}.",
    ]


def _table(header, rows):
    """First column to the left, the others to the right."""
    yield f"| {' | '.join(header)} |"
    yield f"| --- |{' ---: |' * (len(header) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _case(record):
    return " ".join(str(record[name]) for name in ("form", "precision") if name in record)


def _number(value, digits=3):
    return f"{value:.{digits}g}"


def _cell(records):
    rows = [
        [stage, *(_number(record["minutes"][stage]) for record in records)] for stage in _STAGES
    ]
    for title, key in (
        ("**all**", "total_minutes"),
        ("without the two comparisons", "minutes_without_comparisons"),
    ):
        limit = "under_30_minutes" + key.removeprefix("total_minutes").removeprefix("minutes")
        rows.append(
            [title] + [f"{r[key]:.1f} ({'under' if r[limit] else 'over'} 30)" for r in records]
        )
    yield from _table(["minutes"] + [record["precision"] for record in records], rows)
    yield ""
    for record in records:
        what = (
            "" if record["is_the_cell"] else " **Reduced sizes: these are not the cell's minutes.**"
        )
        pictures = "noise" if record["pictures"] == "noise" else "pictures that were given"
        yield (
            f"- {record['precision']}: projected from a slice of {record['slice_seconds']:.0f} s "
            f"on {record['training_images']} training images ({pictures}), "
            f"{record['settings']['experts.num_experts']} experts at once.{what}"
        )


def _peak(records):
    rows = [[record["precision"], _number(record["gflops"] / 1e3, 4)] for record in records]
    yield from _table(["precision", "TFLOP/s of a matrix product"], rows)


def _convolution(records):
    maps = ("forward", "input_gradient", "kernel_gradient")
    rows = []
    for record in records:
        layers = sorted(record["gflops"].items(), key=lambda x: -int(x[0].split("x")[0]))
        for layer, forms in layers:
            best = {name: max(forms[form][name] for form in forms) for name in maps}
            for form, values in forms.items():
                marked = [
                    f"**{_number(values[m])}**" if values[m] == best[m] else _number(values[m])
                    for m in maps
                ]
                rows.append([f"{layer} {form} {record['precision']}", *marked])
    header = ["GFLOP/s; bold: fastest form", "forward", "input gradient", "kernel gradient"]
    yield from _table(header, rows)


def _steps(records):
    rows = [
        [
            _case(record),
            _number(record["seconds"]),
            f"{record['peak_fraction']:.2f}",
            _number(record["temp_bytes"] / _MEGA),
            _number(record["compile_seconds"]),
        ]
        for record in records
    ]
    first = records[0]
    yield f"Width {first['width']}, {first['images']} images, {first['steps']} student steps."
    yield ""
    yield from _table(["form, precision", "seconds", "of peak", "MB", "compilation, s"], rows)


def _experts(records):
    sizes = sorted(records[0]["seconds_per_expert_epoch"], key=int)
    rows = [
        [
            _case(record),
            *(_number(record["seconds_per_expert_epoch"][size]) for size in sizes),
            f"{record['peak_fraction']:.2f}",
        ]
        for record in records
    ]
    yield f"Width {records[0]['width']}, {records[0]['images']} images; seconds per expert-epoch."
    yield ""
    header = ["form, precision", *(f"{size} at once" for size in sizes), "of peak"]
    yield from _table(header, rows)


def _evaluate(records):
    rows = [
        [
            _case(record),
            _number(record["seconds"]),
            _number(record["speedup"]),
            f"{record['peak_fraction']:.2f}",
        ]
        for record in records
    ]
    first = records[0]
    yield f"{first['seeds']} networks, {first['num_images']} images, {first['num_epochs']} epochs."
    yield ""
    header = ["form, precision", "seconds together", "times as fast as in turn", "of peak"]
    yield from _table(header, rows)


def _large_sets(records):
    rows = []
    for record in records:
        for name, case in record["cases"].items():
            seconds = _number(case["seconds"]) if "seconds" in case else "out of memory"
            needed = case["temp_bytes"] + case["argument_bytes"]
            rows.append(
                [
                    f"{name} at {case['side']}x{case['side']}, {record['precision']}",
                    *(_number(case[key] / _GIGA) for key in ("temp_bytes", "argument_bytes")),
                    _number(case["plan_distill_bytes"] / _GIGA)
                    + (" (too low)" if case["plan_distill_bytes"] < needed else ""),
                    f"{seconds} / {case['student_steps']}" if "student_steps" in case else "",
                ]
            )
    header = ["classes x images", "temporaries, GB", "arguments, GB", "plan, GB", "s / steps"]
    yield from _table(header, rows)
    for record in records:
        if "growth" in record:
            yield ""
            yield (
                f"{record['precision']}: from 100x10 to 100x50 the temporaries grow by "
                f"{record['growth']['copies']:.2f} times what the set grows by."
            )


def _profile(records):
    for record in records:
        yield (
            f"{record['seconds']:.4g} s, {record['launches']} kernels, none running for "
            f"{100 * record['idle_fraction']:.0f} % of it."
        )
        yield ""
        rows = [
            [f"`{name}`", _number(total), str(count)] for name, total, count in record["kernels"]
        ]
        yield from _table(["operation", "seconds", "times"], rows)


def _output(records):
    for record in records:
        yield record["output"]


_SECTIONS = {
    "cell": ("CIFAR-10-LT IF 100, IPC 10, projected", _cell),
    "peak": ("Peak", _peak),
    "golden": ("Golden tests", _output),
    "convolution": ("Convolution", _convolution),
    "distill_step_exact": ("One distillation phase, exact gradient", _steps),
    "distill_step_two_pass": ("One distillation phase, two-pass gradient", _steps),
    "expert_epoch": ("Experts", _experts),
    "evaluate": ("Evaluation", _evaluate),
    "large_sets": ("Large synthetic sets", _large_sets),
    "profile": ("Profile of one distillation phase", _profile),
}


if __name__ == "__main__":
    print(render(read_records(pathlib.Path(sys.argv[1]))))
