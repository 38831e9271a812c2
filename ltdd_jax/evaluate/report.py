"""The result of a run as data (report.json) and as a page to read (report.md)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ltdd_jax.evaluate import metrics

ROWS = {
    "distilled": "distilled set",
    "random_real": "random real images, as many",
    "full_real": "whole training set",
}
_COLUMNS = {
    "mean": "accuracy",
    "balanced": "balanced",
    "many": f"many (> {metrics.MANY_ABOVE})",
    "medium": f"medium ({metrics.FEW_BELOW} to {metrics.MANY_ABOVE})",
    "few": f"few (< {metrics.FEW_BELOW})",
}
_ABSENT = "–"  # noqa: RUF001


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
) -> dict[str, Any]:
    """Collects a run's results.

    Args:
      results: name of a training set (keys of `ROWS`) -> summary of `metrics.summarize`.
      config: the whole config as a nested dict.
      config_hash: of the part of the config that decides results.
      data_fingerprint: of the training and test data.
      class_names: [K].
      train_counts: [K], images of the long-tailed training set.
      versions: package -> version.
      seconds: stage -> wall time.

    Returns:
      The content of report.json.

    Raises:
      ValueError: an unknown training set, or lengths that disagree.
    """
    unknown = results.keys() - ROWS.keys()
    if unknown:
        raise ValueError(f"results must be among {list(ROWS)}, not {sorted(unknown)}")
    lengths = {len(class_names), len(train_counts)}
    lengths |= {len(result["per_class"]) for result in results.values()}
    if len(lengths) != 1:
        raise ValueError(f"classes are counted differently: {sorted(lengths)}")
    return {
        "name": config["name"],
        "results": {name: dict(results[name]) for name in ROWS if name in results},
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
    """The report as a page: results, settings, accuracy per class."""
    num_seeds = max((len(r["per_seed"]) for r in report["results"].values()), default=0)
    results = [
        [ROWS[name], _mean_and_std(result), *(_cell(result.get(c)) for c in list(_COLUMNS)[1:])]
        for name, result in report["results"].items()
    ]
    return "\n".join(
        [
            f"# {report['name']}",
            "",
            f"Top-1 accuracy in %, mean ± standard deviation over {num_seeds} networks; groups by "
            "training images per class.",
            "",
            *_table(["trained on", *_COLUMNS.values()], results),
            "",
            _settings(report),
            "",
            *_table(
                ["class", "training images", *(ROWS[name] for name in report["results"])],
                _class_rows(report),
            ),
            "",
            _origin(report),
            "",
        ]
    )


def _settings(report: Mapping[str, Any]) -> str:
    config, counts = report["config"], report["train_counts"]
    data, net, distill = config["data"], config["net"], config["distill"]
    ipc = distill["ipc"]
    return (
        f"{ipc * len(counts)} synthetic images ({ipc} per class) from {sum(counts)} images of "
        f"{data['source']} with {min(counts)} to {max(counts)} per class (factor "
        f"{max(counts) / max(min(counts), 1):.3g}); {net['name']}, depth {net['depth']}, width "
        f"{net['width']}; {config['experts']['num_experts']} experts, "
        f"{distill['num_iterations']} iterations, {distill['gradient']} gradient, seed "
        f"{config['seed']}."
    )


def _class_rows(report: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for k, name in enumerate(report["class_names"]):
        accuracies = [_cell(result["per_class"][k]) for result in report["results"].values()]
        rows.append([name, str(report["train_counts"][k]), *accuracies])
    return rows


def _origin(report: Mapping[str, Any]) -> str:
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in report["seconds"].items())
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    return (
        f"Time: {seconds or _ABSENT}. Config {report['config_hash'][:12]}, data "
        f"{report['data_fingerprint'][:12]}. {versions}."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in [header, rule, *rows]
    ]


def _mean_and_std(result: Mapping[str, Any]) -> str:
    return f"{result['mean']:.1f} ± {result['std']:.1f}"


def _cell(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.1f}"
