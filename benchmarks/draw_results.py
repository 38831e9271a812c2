"""Pictures of the numbers in docs/results, and of distilled sets.

A page says which picture it shows by a comment above it, and `render_results.py` draws it:

    <!-- picture: classes run=digits_lt block=i -->
    ![Accuracy by class](../img/results_classes.png)

Kinds: `classes` (accuracy of every class over its training images, run=RUN,RUN), `methods` (every
set beside its start and random real images), `storage` (accuracy over stored bytes, of study=NAME),
`curve` (accuracy over iterations) and `time` (accuracy over minutes of experts and set). Options
choose rows as those of the tables do.

A set is drawn by itself, without any real photograph:

    python benchmarks/draw_results.py --workdir=DIR --set=NAME --out=docs/img/results_NAME.png
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import matplotlib.ticker
import measured
import numpy as np
import result_words as say
from measured import ClassAccuracy, Number
from PIL import Image, ImageDraw, ImageFont

from ltdd_jax.errors import UserError
from ltdd_jax.presets import PRESETS

# Okabe and Ito's palette, which colour-blind readers can tell apart; marks differ as well.
_BLUE, _ORANGE, _GREEN, _GREY, _INK = "#0072B2", "#D55E00", "#009E73", "#777777", "#202020"
_COLORS = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#56B4E9", "#E69F00")
_MARKS = ("o", "s", "^", "D", "v", "P")
_WIDTH = 7.2  # inches
_DPI = 110
_LINE = 0.21  # inches of a legend's line
_LONG = 50  # characters of a legend's line, of which two would not fit beside each other
# A legend of long names.
_BELOW = {"loc": "outside lower left", "ncols": 2, "columnspacing": 0.6, "handletextpad": 0.3,
          "handlelength": 1.4}  # fmt: skip
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": _GREY,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "legend.frameon": False,
    "font.size": 9,
}
# Images that hardly left the real ones they began as are copies of these, and not shown.
_MAX_LIKENESS = 0.8
_MAX_COLUMNS, _MIN_PIXELS, _GAP = 10, 48, 3
_COPIES = ("selection", "crops")  # sections of methods whose images are real ones
_FREE = ("digits",)  # data whose real images may be shown
_PAPER = (255, 255, 255)


def _new(height: float) -> tuple[plt.Figure, plt.Axes]:
    with plt.rc_context(_STYLE):
        return plt.subplots(figsize=(_WIDTH, height), layout="constrained")


def _look_up(numbers, row, kind):
    """A row of the same directory, block and number of images that belongs to all sets of it."""
    wanted = (kind, row.workdir, row.block, row.study, row.ipc, "")
    return next((r for r in numbers if wanted ==
                 (r.row, r.workdir, r.block, r.study, r.ipc, r.network)), None)  # fmt: skip


def _beside(numbers, row, kind):
    """A row of the same set."""
    wanted = (kind, row.run, row.block, row.ipc, row.variant, "")
    return next((r for r in numbers if wanted ==
                 (r.row, r.run, r.block, r.ipc, r.variant, r.network)), None)  # fmt: skip


def _sets(numbers, words):
    rows = [r for r in measured.choose(numbers, words) if not r.network]
    return [row for row in rows if row.row == "distilled"]


def _name_accuracy(row):
    """The title says which images judged, where these were held-out training images."""
    return "test accuracy" if row.judge == "test" else "accuracy"


def _finish(figure, row, **legend):
    """The title above everything, and the legend outside of the axes."""
    figure.suptitle(say.describe(row), fontsize=9, x=0.01, ha="left")
    names = [name for axes in figure.axes for name in axes.get_legend_handles_labels()[1]]
    if legend.get("ncols", 1) > 1 and max(map(len, names), default=0) > _LONG:
        legend["ncols"] = 1
        figure.set_figheight(figure.get_figheight() + _LINE * (len(names) // 2))
    figure.legend(frameon=False, fontsize=9, **legend)
    return figure


def draw_classes(
    numbers: Sequence[Number], by_class: Sequence[ClassAccuracy], words: dict[str, str]
) -> plt.Figure:
    """Accuracy of every class over its training images: sets, their starts and what is real."""
    sets = _sets(numbers, words)
    if not sets:
        raise UserError(f"picture of classes: no set of run={words.get('run', '')}")
    rows = [(_look_up(numbers, sets[0], "full_real"), "whole training set", _GREY, "o--")]
    rows += [(_look_up(numbers, sets[0], "teacher"), "teacher", _GREY, "o--")]
    rows += [(_look_up(numbers, sets[0], "random_real"), "random real images", _GREEN, "^:")]
    if len(sets) == 1:
        rows += [(_beside(numbers, sets[0], "initial"), "start", _ORANGE, "s:")]
    colors = [_BLUE, *(c for c in _COLORS if c not in (_BLUE, _GREEN))]
    names = [say.name(row) for row in sets]
    if any(row.variant for row in sets):  # of one method, or not as published
        names = [say.title(row) for row in sets]
    rows += [(*of_it, "D-") for of_it in zip(sets, names, colors, strict=False)]
    figure, axis = _new(3.5)
    for row, label, color, style in rows:
        of_row = [x for x in by_class if row is not None and measured.is_of(row, x)]
        of_row.sort(key=lambda x: -x.training_images)
        if of_row:
            points = np.array([(x.training_images, x.accuracy) for x in of_row]).T
            axis.plot(*points, style, color=color, label=f"{label} ({row.mean:.1f} %)", ms=4.5)
    axis.set(xscale="log", ylabel=f"{_name_accuracy(sets[0])} of the class, %")
    axis.set_xlabel("training images of the class, frequent to rare")
    axis.set_ylim(bottom=0)
    axis.invert_xaxis()
    counts = sorted({x.training_images for x in by_class if measured.is_of(sets[0], x)})
    if len(counts) <= 12:
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
    return _finish(figure, sets[0], **_BELOW)


def draw_methods(
    numbers: Sequence[Number], by_class: Sequence[ClassAccuracy], words: dict[str, str]
) -> plt.Figure:
    """Every set as a dot, its start as a ring, random real images as a line; best at the top."""
    del by_class
    sets = sorted(_sets(numbers, words), key=lambda row: row.mean)
    if len({(r.data, r.imbalance_factor, r.ipc, r.width, r.block) for r in sets}) != 1:
        raise UserError("a picture of methods needs the sets of one data set, width and block")
    figure, axis = _new(0.9 + 0.19 * len(sets))
    places = np.arange(len(sets))
    random = _look_up(numbers, sets[0], "random_real")
    if random is not None:
        axis.axvspan(random.mean - random.std, random.mean + random.std, color=_GREEN, alpha=0.2)
        axis.axvline(random.mean, color=_GREEN, label=f"random real images ({random.mean:.1f})")
    starts = [_beside(numbers, row, "initial") for row in sets]
    began = [(row.mean, place) for row, place in zip(starts, places, strict=True) if row]
    if began:
        axis.plot(*zip(*began, strict=True), "o", mfc="white", mec=_ORANGE, ms=5, label="start")
    means, spreads = [r.mean for r in sets], [r.std for r in sets]
    axis.errorbar(means, places, xerr=spreads, fmt="D", color=_BLUE, ms=4.5, label="final set")
    axis.set_yticks(places, [say.title(row) for row in sets], fontsize=8)
    axis.set_ylim(-0.7, len(sets) - 0.3)
    axis.set_xlabel(f"{_name_accuracy(sets[0])}, % (bars: standard deviation)")
    return _finish(figure, sets[0], loc="outside lower center", ncols=3)


def draw_storage(
    numbers: Sequence[Number], by_class: Sequence[ClassAccuracy], words: dict[str, str]
) -> plt.Figure:
    """Accuracy over the bytes of images, labels and teacher; points say what is stored."""
    del by_class
    rows = measured.choose(numbers, {"study": "storage", **words})
    rows = [r for r in rows if r.row in ("distilled", "random_real", "random_real_soft")
            and r.stored_bytes and not r.network]  # fmt: skip
    if not rows:
        raise UserError("picture of storage: no number of this study")
    groups: dict[str, list[Number]] = {}
    for row in rows:
        title = "random real images" if row.row != "distilled" else say.name(row)
        groups.setdefault(title, []).append(row)
    figure, axis = _new(3.2)
    for (title, of_it), color, mark in zip(groups.items(), _COLORS, _MARKS, strict=False):
        of_it.sort(key=lambda row: row.stored_bytes)
        stored = [row for row in of_it if row.labels != "ST"]
        live = [row for row in of_it if row.labels == "ST"]
        for rows_of, form, label in ((stored, f"{mark}-", title), (live, "*", "")):
            points = [(r.stored_bytes / 1e3, r.mean, r.std) for r in rows_of]
            if points:
                x, y, spread = zip(*points, strict=True)
                shown = label or (None if stored else title)
                axis.errorbar(x, y, spread, fmt=form, color=color, label=shown, ms=6, capsize=2)
        for row in of_it if color == _COLORS[0] else ():
            place = (6, -11) if row.labels != "ST" else (-62, 2)
            axis.annotate(_stored(row), (row.stored_bytes / 1e3, row.mean), fontsize=8,
                          xytext=place, textcoords="offset points")  # fmt: skip
    axis.set(xscale="log", xlabel="kB stored: images, labels and teacher")
    axis.set_ylabel(f"{_name_accuracy(rows[0])}, %")
    axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
    axis.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.10g}"))
    axis.minorticks_off()
    axis.margins(x=0.12)
    return _finish(figure, rows[0], loc="outside right center")


def _stored(row):
    words = {"H": "class", "S1": "one soft label", "ST": "live teacher"}
    return words.get(row.labels) or f"{row.views} view{'s' * (row.views != 1)}"


def draw_curve(
    numbers: Sequence[Number], by_class: Sequence[ClassAccuracy], words: dict[str, str]
) -> plt.Figure:
    """Accuracy over iterations, from the start to the set itself."""
    del by_class
    points = measured.choose(numbers, {"study": "curve", **words})
    points = [r for r in points if r.row == "iteration"]
    if not points:
        raise UserError("picture of a curve: no number of this study")
    figure, axis = _new(3.9)
    keys = dict.fromkeys((row.run, row.block, row.variant) for row in points)
    for key, color, mark in zip(keys, _COLORS, _MARKS, strict=False):
        line = [r for r in points if (r.run, r.block, r.variant) == key]
        ends = [_beside(numbers, line[0], kind) for kind in ("initial", "distilled")]
        line = sorted([*line, *filter(None, ends)], key=lambda row: row.iterations)
        x, y, spread = np.array([(r.iterations, r.mean, r.std) for r in line]).T
        axis.plot(x, y, f"{mark}-", color=color, ms=4, label=say.title(line[-1]))
        axis.fill_between(x, y - spread, y + spread, color=color, alpha=0.15, lw=0)
    random = _look_up(numbers, line[-1], "random_real")
    if random is not None:
        axis.axhline(random.mean, color=_GREY, ls="--", label="random real images")
    axis.set(xlabel="iterations", ylabel=f"{_name_accuracy(points[0])}, %")
    return _finish(figure, points[0], **(_BELOW | {"ncols": 1}))


def draw_time(
    numbers: Sequence[Number], by_class: Sequence[ClassAccuracy], words: dict[str, str]
) -> plt.Figure:
    """Accuracy over the minutes of experts and set; a line from where the set began.

    Sets whose own time or that of their experts is not known are left out.
    """
    del by_class
    sets = [row for row in _sets(numbers, words) if row.wall_seconds is not None]
    sets = [row for row in sets if row.expert_seconds is not None or not row.experts]
    if len({(r.data, r.imbalance_factor, r.ipc, r.width, r.block) for r in sets}) != 1:
        raise UserError("a picture of times needs the sets of one data set, width and block")
    figure, axis = _new(4.0)
    for index, row in enumerate(sorted(sets, key=lambda row: -row.mean)):
        color, mark = _COLORS[index % len(_COLORS)], _MARKS[index // len(_COLORS) % len(_MARKS)]
        minutes = max(1.0, row.wall_seconds + (row.expert_seconds or 0.0)) / 60
        start = _beside(numbers, row, "initial")
        if start is not None:
            axis.plot([minutes] * 2, [start.mean, row.mean], ":", color=color, lw=1)
            axis.plot(minutes, start.mean, mark, mfc="white", mec=color, ms=4.5)
        axis.errorbar(minutes, row.mean, row.std, fmt=mark, color=color, ms=5.5, capsize=2,
                      label=f"{say.title(row)} ({row.mean:.1f})")  # fmt: skip
    axis.plot([], [], "o", mfc="white", mec=_GREY, ms=4.5, label="hollow: where it began")
    random = _look_up(numbers, sets[0], "random_real")
    if random is not None:
        axis.axhline(random.mean, color=_GREY, ls="--", lw=1,
                     label=f"random real images ({random.mean:.1f})")  # fmt: skip
    axis.set(xscale="log", xlabel="minutes of experts and set")
    axis.set_ylabel(f"{_name_accuracy(sets[0])}, %")
    axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.10g}"))
    axis.minorticks_off()
    axis.margins(x=0.12)
    return _finish(figure, sets[0], **_BELOW)


PICTURES: dict[str, Callable[..., plt.Figure]] = {
    "classes": draw_classes,
    "methods": draw_methods,
    "storage": draw_storage,
    "curve": draw_curve,
    "time": draw_time,
}


def save(figure: plt.Figure, path: pathlib.Path) -> None:
    """A small PNG that is the same whenever it is drawn from the same numbers."""
    figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def draw_set(workdir: pathlib.Path, set_name: str = "", *, start: bool = False) -> Image.Image:
    """The images of a distilled set, a row per class; never a real photograph.

    Args:
      workdir: of a finished run.
      set_name: of the set; "" for the one at the root.
      start: whether the images it began as stand beside them; of the digits alone.

    Raises:
      UserError: images are real photographs, or hardly differ from those they began as.
    """
    home = workdir / "sets" / set_name if set_name else workdir
    settings = json.loads((home / "report.json").read_text())["config"]
    method, source = settings["distill"]["method"], settings["data"]["source"]
    if method in PRESETS and PRESETS[method].section in _COPIES:
        raise UserError(f"the images of {method} are real ones and are not drawn")
    with np.load(home / "synthetic" / "synthetic.npz") as archive:
        pixels, labels, names = (archive[name] for name in ("pixels", "labels", "class_names"))
    with np.load(home / "synthetic" / "initial.npz") as archive:
        initial = archive["pixels"]
    shown = [str(name) for name in names]
    if source in _FREE:
        both = [(initial, [""] * len(shown))] if start else []
        return _join([draw_grid(p, labels, n) for p, n in ((pixels, shown), *both)])
    likeness = compare(pixels, initial)
    if start or likeness > _MAX_LIKENESS:
        wrong = "start from" if start else "hardly differ from"
        raise UserError(
            f"the images of {home} {wrong} real ones (correlation {likeness:.2f}, at most "
            f"{_MAX_LIKENESS}), which are not drawn"
        )
    return draw_grid(pixels, labels, shown)


def _join(grids):
    canvas = Image.new("RGB", (sum(grid.width for grid in grids), grids[0].height), _PAPER)
    left = 0
    for grid in grids:
        canvas.paste(grid.convert("RGB"), (left, 0))
        left += grid.width
    return canvas.quantize(128)


def compare(pixels: np.ndarray, others: np.ndarray) -> float:
    """Median over images [N, H, W, C] of the correlation of their pixels with another set's."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (pixels, others))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.median((a * b).sum(axis=1) / np.maximum(norms, 1e-12)))


def draw_grid(pixels: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Images uint8 [N, H, W, C] as a grid, a row per class with its name, at most ten columns."""
    side = pixels.shape[1]
    scale = max(1, -(-_MIN_PIXELS // side))
    columns = min(_MAX_COLUMNS, int(np.bincount(labels).max()))
    font = ImageFont.load_default(size=13)
    left = int(max(font.getlength(name) for name in names)) + 8
    cell = scale * side + _GAP
    canvas = Image.new("RGB", (left + columns * cell, len(names) * cell), _PAPER)
    pen = ImageDraw.Draw(canvas)
    for k, name in enumerate(names):
        pen.text((0, k * cell + cell // 2), name, (32, 32, 32), font, anchor="lm")
        for j, image in enumerate(pixels[labels == k][:columns]):
            shown = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
            shown = np.broadcast_to(shown, (*shown.shape[:2], 3))
            canvas.paste(Image.fromarray(shown), (left + j * cell, k * cell))
    return canvas.quantize(128)


def main(argv: list[str]) -> int:
    """Draws one set; exit code 2 after one sentence on what is wrong."""
    parser = argparse.ArgumentParser(description="Draws the images of a distilled set.")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--set", default="")
    parser.add_argument("--start", action="store_true", help="beside what it began as; digits")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args(argv)
    try:
        draw_set(args.workdir, args.set, start=args.start).save(args.out, optimize=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
