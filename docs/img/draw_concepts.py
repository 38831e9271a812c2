"""Draws the three figures of docs/concepts.md.

python docs/img/draw_concepts.py runs/digits_lt docs/img
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from ltdd_jax.data import long_tail

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
_SIZE = (7.2, 2.6)  # inches


def draw_long_tail(counts: list[int]) -> plt.Figure:
    """Images of each class in the digits and in CIFAR-10-LT."""
    figure, axes = plt.subplots(1, 2, figsize=_SIZE, layout="constrained")
    cifar = long_tail.long_tail_counts(5000, 10, 100.0)
    for axis, numbers, title in zip(
        axes, (counts, cifar), ("digits, factor 21", "CIFAR-10-LT, factor 100"), strict=True
    ):
        axis.bar(range(len(numbers)), numbers, color=_BLUE)
        axis.set(title=title, xlabel="class, common to rare", ylabel="training images")
        axis.set_xticks(range(len(numbers)))
        axis.text(len(numbers) - 1, numbers[-1], str(numbers[-1]), ha="center", va="bottom")
    return figure


def draw_matching() -> plt.Figure:
    """A schematic: an expert's path, and a student that leaves and returns to it."""
    figure, axis = plt.subplots(figsize=_SIZE, layout="constrained")
    t = np.linspace(0, 1, 9)
    expert = np.stack([t, 0.55 * np.sin(2.2 * t)])
    axis.plot(*expert, "o-", color=_GREY, label="expert, a snapshot per epoch")
    s = np.linspace(0, 1, 7)
    end = expert[:, 5] + [0.03, -0.1]
    student = np.outer(expert[:, 2], 1 - s) + np.outer(end, s)
    student[1] -= 0.22 * np.sin(np.pi * s) * (1 - 0.4 * s)
    axis.plot(*student, "s-", color=_ORANGE, ms=4, label="student, steps on synthetic images")
    axis.annotate(r"$θ_0$", expert[:, 2], xytext=(-14, 8), textcoords="offset points")
    axis.annotate(r"$θ^*$", expert[:, 5], xytext=(-6, 9), textcoords="offset points")
    axis.annotate(r"$θ_T$", end, xytext=(4, -14), textcoords="offset points")
    axis.plot(
        *zip(end, expert[:, 5], strict=True), ":", color=_BLUE, lw=2, label="what is measured"
    )
    axis.set(
        xlabel="one direction in parameter space",
        ylabel="another",
        xticks=[],
        yticks=[],
        ylim=(-0.05, 0.66),
    )
    axis.legend(loc="lower right", frameon=False)
    return figure


def draw_accuracies(report: dict) -> plt.Figure:
    """Accuracy by class of three rows."""
    figure, axis = plt.subplots(figsize=_SIZE, layout="constrained")
    rows = (
        ("full_real", "whole training set,\n417 images", _GREY, "o--"),
        ("random_real", "twenty random\nreal images", _GREEN, "^-"),
        ("distilled", "twenty distilled\nimages", _BLUE, "s-"),
    )
    for name, label, color, style in rows:
        axis.plot(report["results"][name]["per_class"], style, color=color, label=label)
    counts = report["train_counts"]
    axis.set_xticks(range(len(counts)), [f"{k}\n{n}" for k, n in enumerate(counts)])
    axis.set(xlabel="class, and its training images", ylabel="test accuracy in %", ylim=(0, 102))
    figure.legend(loc="outside right center", frameon=False)
    return figure


def main(workdir: pathlib.Path, folder: pathlib.Path) -> None:
    """Draws all of them."""
    report = json.loads((workdir / "report.json").read_text())
    figures = {
        "long_tail": draw_long_tail(report["train_counts"]),
        "matching": draw_matching(),
        "accuracy_by_class": draw_accuracies(report),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
