"""The parts of the page that have a chart or pictures in them.

Every function takes the report of `text.make_report` and returns pieces of HTML, none where there
is nothing to show; `order` are the classes from the most frequent to the rarest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltdd_jax.report import blocks, cards, figures, markup, text
from ltdd_jax.report.cards import Pictures
from ltdd_jax.report.figures import Series

Report = Mapping[str, Any]
Curve = tuple[Sequence[int], Sequence[float]]  # iterations and values

_COMPARED = {
    "distilled": "distilled set",
    "initial": "before the first iteration",
    "random_real": "random real images",
    "full_real": "whole training set",
}
_SHOWN_CONFUSIONS = 8


def draw_classes(report: Report, order: np.ndarray) -> list[str]:
    """Accuracy of each class beside the baselines of its block, and the long tail itself."""
    parts: list[str] = []
    for block, rows in blocks.list_blocks(report).items():
        chart, table = _draw_block(report, order, block, rows)
        counts = _draw_counts(report, order) if not parts else ""
        parts += [_side_by_side(chart, counts) if counts else chart]
        parts += [markup.fold("The numbers of this chart", table)]
    return parts


def _draw_block(report, order, block, rows):
    """The chart of a block and the table of its numbers."""
    names = [report["class_names"][k] for k in order]
    series = [
        Series(title, range(len(order)), [rows[key]["per_class"][k] for k in order])
        for name, title in _COMPARED.items()
        if (key := name if block == "i" else f"{block}_{name}") in rows
    ]
    alt = "Lines of the accuracy of each class, most frequent class first: " + "; ".join(
        f"{line.name} {_describe_ends(line.y)}" for line in series
    )
    chart_name = "accuracy" if block == "i" else f"accuracy-{block}"
    chart = figures.draw_classes(chart_name, alt, names, series, y_label="accuracy in %")
    body = [
        [report["class_names"][k], f"{report['train_counts'][k]:,}",
         *(text.format_accuracy(row["per_class"][k]) for row in rows.values())]
        for k in order
    ]  # fmt: skip
    table = markup.table(
        ["class", "training images", *(row["title"] for row in rows.values())],
        body,
        caption="Accuracy in % of each class, most frequent class first",
    )
    caption = "Mean over the networks; the rarest classes are on the right."
    if block == "ii":
        caption = f"{blocks.TITLES[block]}. {caption}"
    return markup.figure(chart, caption), table


def _draw_counts(report, order):
    counts = [report["train_counts"][k] for k in order]
    names = [report["class_names"][k] for k in order]
    alt = (
        f"Bars of the training images of {len(counts)} classes, falling from {counts[0]:,} to "
        f"{counts[-1]:,}."
    )
    chart = figures.draw_counts("counts", alt, names, counts)
    caption = (
        f"{sum(counts):,} training images in {len(counts)} classes: {counts[0]:,} of "
        f"{markup.clean(names[0])}, {counts[-1]:,} of {markup.clean(names[-1])} (factor "
        f"{counts[0] / max(counts[-1], 1):.3g})."
    )
    return markup.figure(chart, caption)


def _describe_ends(values):
    """The first third of the classes and the last, in words."""
    third = max(len(values) // 3, 1)
    first, last = np.mean(values[:third]), np.mean(values[-third:])
    return f"{first:.0f} % in the first third, {last:.0f} % in the last"


def draw_images(report: Report, pictures: Pictures, order: np.ndarray) -> list[str]:
    """Every class with its distilled images, the real ones before them, and their labels."""
    body, note = cards.draw_cards(
        pictures, report["class_names"], report["train_counts"], [int(k) for k in order]
    )
    if pictures.initial is None:
        lead = "The images of the set, class by class, most frequent class first."
    else:
        lead = (
            "Left the real image that a distilled one started from, right the distilled one, class "
            "by class, most frequent class first."
        )
    lead += (
        " Below are the largest shares of its label in %; bold and orange is the class that the "
        "image stands for."
    )
    return [markup.paragraph(lead), markup.paragraph(note, "soft") if note else "", body]


def draw_confusions(
    report: Report, confusion: Sequence[Sequence[int]] | None, order: np.ndarray
) -> list[str]:
    """Which classes are taken for which, from counts [K, K] with a row for each true class."""
    if confusion is None:
        return []
    counts = np.asarray(confusion, np.float64)[np.ix_(order, order)]
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [report["class_names"][k] for k in order]
    off = np.where(np.eye(len(order), dtype=bool), -1.0, shares)
    largest = np.argsort(-off, axis=None, kind="stable")[:_SHOWN_CONFUSIONS]
    pairs = [np.unravel_index(place, off.shape) for place in largest]
    body = [
        [names[row], names[column], f"{shares[row, column]:.1f}"]
        for row, column in pairs
        if off[row, column] > 0
    ]
    alt = (
        f"Matrix of {len(order)} true by {len(order)} predicted classes for networks trained on "
        f"the distilled set; {np.trace(counts) / max(counts.sum(), 1):.0%} of all images lie on "
        "the diagonal. The table beside it names the largest confusions."
    )
    chart = figures.draw_matrix("confusion-matrix", alt, names, shares)
    caption = "Networks trained on the distilled set; classes from the most frequent on."
    table = markup.table(
        ["true class", "predicted", "in %"], body, caption="The largest confusions"
    )
    return [_side_by_side(markup.figure(chart, caption), table)]


def draw_experts(report: Report, losses: Mapping[str, np.ndarray], order: np.ndarray) -> list[str]:
    """Losses of the experts by epoch, and what their last snapshots get right in each class.

    Args:
      report: with the accuracies.
      losses: kind -> float [epochs, experts].
      order: [K].
    """
    charts = []
    if losses:
        charts.append(_draw_expert_losses(losses))
    trained = text.name_trained(report)
    if trained:
        charts.append(_draw_expert_classes(report, order))
    if not charts:
        return []
    rows = [
        [f"{title}, epoch {found['num_epochs']}",
         *(text.format_accuracy(found.get(c)) for c in text.COLUMNS)]
        for title, found in trained.items()
    ]  # fmt: skip
    caption = "Accuracy in % of the last snapshots, mean over the experts"
    header = ["experts", *text.COLUMNS.values()]
    table = markup.table(header, rows, caption=caption) if rows else ""
    return [_side_by_side(*charts), table]


def _draw_expert_losses(losses):
    series, words = [], []
    for kind, values in losses.items():
        low, high, mean = values.min(axis=1), values.max(axis=1), values.mean(axis=1)
        series.append(Series(f"{kind} experts", range(1, len(values) + 1), mean, low, high))
        words.append(f"{kind} experts from {mean[0]:.2f} to {mean[-1]:.2f} in {len(mean)} epochs")
    alt = f"Lines of the training loss: {'; '.join(words)}."
    chart = figures.draw_lines(
        "expert-losses", alt, series, x_label="epoch", y_label="training loss"
    )
    return markup.figure(chart, "Training loss, mean over the experts; the band spans all of them.")


def _draw_expert_classes(report, order):
    series = [
        Series(title, range(len(order)), [found["per_class"][k] for k in order])
        for title, found in text.name_trained(report).items()
    ]
    alt = "Lines of the accuracy of the experts by class, most frequent class first: "
    alt += "; ".join(f"{line.name} {_describe_ends(line.y)}" for line in series)
    names = [report["class_names"][k] for k in order]
    chart = figures.draw_classes("experts", alt, names, series, y_label="accuracy in %")
    judges = "held-out training images" if report.get("held_out", 0) else "the test images"
    caption = f"Last snapshots on {judges}, mean over the experts, by class."
    return markup.figure(chart, caption)


def draw_distillation(report: Report, losses: Mapping[str, Curve]) -> list[str]:
    """Losses by iteration, and the accuracy on the way where it was measured."""
    charts = []
    if losses:
        series = [Series(name.replace("_", " "), *curve) for name, curve in losses.items()]
        alt = "Lines of the losses of the distillation by iteration: " + "; ".join(
            f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in series
        )
        chart = figures.draw_lines(
            "distill-losses", alt, series, x_label="iteration", y_label="loss"
        )
        caption = "What the distillation minimises, means between two lines of metrics.jsonl."
        charts.append(markup.figure(chart, caption))
    points = text.curve_points(report)
    if points:
        means, stds = ([row[name] for _, row in points] for name in ("mean", "std"))
        low, high = np.subtract(means, stds), np.add(means, stds)
        line = Series(
            "accuracy", [iteration for iteration, _ in points], means, low.tolist(), high.tolist()
        )
        alt = f"Line of the accuracy, from {means[0]:.1f} to {means[-1]:.1f} %."
        chart = figures.draw_lines(
            "curve", alt, [line], x_label="iteration", y_label="accuracy in %"
        )
        charts.append(markup.figure(chart, text.describe_best(report)))
    return [_side_by_side(*charts)] if charts else []


def _side_by_side(*parts):
    return '<div class="charts">' + "\n".join(parts) + "</div>"
