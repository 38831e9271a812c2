"""The result of a run as data (report.json) and as a page to read (report.md)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ltdd_jax.evaluate import metrics
from ltdd_jax.report import blocks

COLUMNS = {
    "mean": "accuracy",
    "balanced": "balanced",
    "many": f"many (> {metrics.MANY_ABOVE})",
    "medium": f"medium ({metrics.FEW_BELOW} to {metrics.MANY_ABOVE})",
    "few": f"few (< {metrics.FEW_BELOW})",
}
_CURVE = "iteration_"
ABSENT = "–"  # noqa: RUF001


def make_report(
    results: Mapping[str, Mapping[str, Any]],
    *,
    config: Mapping[str, Any],
    config_hash: str,
    data_fingerprint: str,
    class_names: Sequence[str],
    train_counts: Sequence[int],
    versions: Mapping[str, str],
    seconds: Mapping[str, float],
    experts: Mapping[str, Mapping[str, Any]] | None = None,
    teachers: Mapping[str, Mapping[str, Any]] | None = None,
    held_out: int = 0,
) -> dict[str, Any]:
    """Collects a run's results.

    Args:
      results: name of a row -> summary of `metrics.summarize`, with its `title`, learning `rate`,
        `num_epochs`, `updates` and `tuning`; in the order of the table. Rows called
        iteration_NNNNNN are points of a curve.
      config: the whole config as a nested dict.
      config_hash: of the part of the config that decides results.
      data_fingerprint: of the training and test data.
      class_names: [K].
      train_counts: [K], images of the long-tailed training set.
      versions: package -> version.
      seconds: stage -> wall time.
      experts: kind -> summary of the last snapshots, mean over experts.
      teachers: name -> summary of one trained network, with its `title`, `net` and `recipe`.
      held_out: training images that judged; 0 where the test set did.

    Returns:
      The content of report.json.

    Raises:
      ValueError: lengths that disagree.
    """
    lengths = {len(class_names), len(train_counts)}
    lengths |= {len(result["per_class"]) for result in results.values()}
    if len(lengths) != 1:
        raise ValueError(f"classes are counted differently: {sorted(lengths)}")
    return {
        "name": config["name"],
        "held_out": int(held_out),
        "results": {name: dict(result) for name, result in results.items()},
        "best_on_test": _find_best(results),
        "experts": {kind: dict(summary) for kind, summary in (experts or {}).items()},
        "teachers": {name: dict(summary) for name, summary in (teachers or {}).items()},
        "config": dict(config),
        "config_hash": config_hash,
        "data_fingerprint": data_fingerprint,
        "class_names": [str(name) for name in class_names],
        "train_counts": [int(count) for count in train_counts],
        "versions": dict(versions),
        "seconds": {stage: float(value) for stage, value in seconds.items()},
    }


def render_json(report: Mapping[str, Any]) -> str:
    """The report as JSON with sorted keys; raises ValueError on NaN and infinity."""
    return json.dumps(report, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def render_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page: results of each block, curve, experts, settings, accuracy per class."""
    found = blocks.list_blocks(report)
    seeds = [len(row["per_seed"]) for rows in found.values() for row in rows.values()]
    return "\n".join(
        [
            f"# {report['name']}",
            "",
            *(line for sentence in describe_judges(report) for line in (sentence, "")),
            f"Top-1 accuracy in %, mean ± standard deviation over "
            f"{blocks.count(max(seeds, default=0), 'network')}; groups by training images per "
            "class. The final set is evaluated, nothing is chosen on the test set.",
            "",
            *(line for block, rows in found.items() for line in _block(report, block, rows)),
            *_ways(report),
            *_curve(report),
            *_experts(report),
            describe_settings(report),
            "",
            *(line for rows in found.values() for line in _classes(report, rows)),
            describe_origin(report),
            "",
        ]
    )


def describe_judges(report: Mapping[str, Any]) -> list[str]:
    """A sentence where not the test set judged."""
    count = report.get("held_out", 0)
    if not count:
        return []
    return [
        f"Judged on {count:,} held-out training images; the test set was not read. Every class "
        "counts the same in the accuracy."
    ]


def name_judges(report: Mapping[str, Any]) -> str:
    """'the test set' or 'held-out training images'."""
    return "held-out training images" if report.get("held_out", 0) else "the test set"


def _block(report, block, rows):
    """The table of a block, what is to be said about it, and how each row came about."""
    results = [
        [r["title"], format_mean(r), *(format_accuracy(r.get(c)) for c in list(COLUMNS)[1:]),
         f"{r['rate']:.4g}", str(r["updates"])]
        for r in rows.values()
    ]  # fmt: skip
    origins = blocks.describe_rows(rows)
    # The first block alone needs no name.
    title = [] if list(blocks.list_blocks(report)) == ["i"] else [f"## {blocks.TITLES[block]}", ""]
    return [
        *title,
        *_table(["trained on", *COLUMNS.values(), "rate", "updates"], results),
        "",
        *(
            line
            for sentence in (*blocks.describe_notes(rows), *describe_rates(rows))
            for line in (sentence, "")
        ),
        *([*_table(blocks.HEADER, origins), ""] if origins else []),
    ]


def _classes(report, rows):
    header = ["class", "training images", *(row["title"] for row in rows.values())]
    return [*_table(header, _class_rows(report, rows)), ""]


def curve_points(report: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """(iteration, result) of the sets that were kept on the way, if they were evaluated."""
    named = [(n, r) for n, r in report["results"].items() if n.startswith(_CURVE)]
    points = [(int(name.removeprefix(_CURVE)), row) for name, row in named]
    return sorted(points, key=lambda point: point[0])


def format_mean(result: Mapping[str, Any]) -> str:
    """'80.6 ± 2.2'."""
    return f"{result['mean']:.1f} ± {result['std']:.1f}"


def format_accuracy(value: float | None) -> str:
    """'80.6', or a dash for a group without classes."""
    return ABSENT if value is None else f"{value:.1f}"


def _find_best(results):
    """The best point of the curve on the test set, as the literature reports; None without one."""
    curve = {n: r["mean"] for n, r in results.items() if n.startswith(_CURVE) or n == "distilled"}
    if len(curve) < 2:
        return None
    best = max(curve, key=curve.get)
    return {"row": best, "mean": results[best]["mean"], "std": results[best]["std"]}


def describe_rates(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How the rates of real images were chosen, a sentence for each row where one was."""
    lines = []
    for row in rows.values():
        if row["tuning"]:
            tried = ", ".join(f"{rate}: {score:.1f}" for rate, score in row["tuning"].items())
            lines.append(
                f"Rate of «{row['title']}», by balanced accuracy in % on held-out training "
                f"images: {tried}."
            )
    return lines


def _curve(report):
    points = curve_points(report)
    if not points:
        return []
    rows = [[str(iteration), format_mean(row)] for iteration, row in points]
    return [*_table(["after iteration", "accuracy"], rows), "", describe_best(report), ""]


def describe_best(report: Mapping[str, Any]) -> str:
    """A sentence on the best point of the curve; only where there is a curve."""
    best = report["best_on_test"]
    return (
        f"Best on {name_judges(report)}, as the literature reports it and not to be compared with "
        f"the final set: {best['mean']:.1f} ± {best['std']:.1f} ({best['row']})."
    )


def describe_ways(report: Mapping[str, Any]) -> list[list[str]]:
    """A line below `blocks.WAYS` for every other network and optimiser."""
    return [
        [
            network,
            optimiser,
            *(
                format_mean(rows[name]) if name in rows else ABSENT
                for name in ("distilled", "random_real")
            ),
        ]
        for network, optimiser, rows in blocks.list_ways(report)
    ]


def _ways(report):
    lines = describe_ways(report)
    return [*_table(blocks.WAYS, lines), ""] if lines else []


def _experts(report):
    rows = [
        [f"{title}, epoch {s['num_epochs']}", *(format_accuracy(s.get(c)) for c in COLUMNS)]
        for title, s in name_trained(report).items()
    ]
    if not rows:
        return []
    return [*_table(["last snapshots, mean over experts", *COLUMNS.values()], rows), ""]


def name_trained(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Title -> summary of everything that was trained on the real images before distillation."""
    of_experts = {f"{kind} experts": summary for kind, summary in report["experts"].items()}
    return of_experts | {
        f"{summary['title']} ({summary['net']}, {summary['recipe']})": summary
        for summary in report["teachers"].values()
    }


def describe_settings(report: Mapping[str, Any]) -> str:
    """Method, data, network and seed in a sentence."""
    config, counts = report["config"], report["train_counts"]
    data, net, distill = config["data"], config["net"], config["distill"]
    experts = f"{config['experts']['num_experts']} experts, " if report["experts"] else ""
    size = f", depth {net['depth']}, width {net['width']}" if net["name"] == "convnet" else ""
    return (
        f"Method {distill['method']}, {distill['ipc']} images per class from {sum(counts)} images "
        f"of {data['source']} with {min(counts)} to {max(counts)} per class (factor "
        f"{max(counts) / max(min(counts), 1):.3g}); {net['name']}{size}; "
        f"{experts}seed {config['seed']}."
    )


def _class_rows(report: Mapping[str, Any], results: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for k, name in enumerate(report["class_names"]):
        accuracies = [format_accuracy(result["per_class"][k]) for result in results.values()]
        rows.append([name, str(report["train_counts"][k]), *accuracies])
    return rows


def describe_origin(report: Mapping[str, Any]) -> str:
    """Times, identity and versions in two sentences."""
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds_in_order(report))
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    return (
        f"Time: {seconds or ABSENT}. Config {report['config_hash'][:12]}, data "
        f"{report['data_fingerprint'][:12]}. {versions}."
    )


def seconds_in_order(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Seconds by stage in the order of the stages, whatever was resumed when."""
    order = ("experts", "distill", "evaluate")
    return sorted(report["seconds"].items(), key=lambda item: order.index(item[0]))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in [header, rule, *rows]
    ]
