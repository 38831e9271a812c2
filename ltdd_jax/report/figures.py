"""Charts as SVG that stands in the page itself and takes its colours from the page's style.

Matplotlib draws them. It is imported when the first chart is drawn, as most commands draw none.
"""

import dataclasses
import io
import re
import warnings
from collections.abc import Sequence

import numpy as np

from ltdd_jax.report import markup, style

_SIZE = (5.5, 3.7)  # inches; one is 72 units of the drawing
_NAMED_CLASSES = 24  # on an axis; beyond, classes are numbered by frequency
_NUMBERS_IN_CELLS = 12  # classes up to which a matrix has its numbers written into it
_NAME_LENGTH = 12
_ORDERED = "classes, the most frequent first"
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKS = ("o", "s", "^", "D", "v")
_FONT = "DejaVu Sans"  # comes with Matplotlib; wider than most, so that other letters fit
_SETTINGS = {
    "svg.fonttype": "none",  # letters stay letters
    "font.sans-serif": [_FONT],
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": style.GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), style.INK
    ),
}


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
      name: in the legend.
      x: [P].
      y: [P].
      low: [P], lower end of a band around the line; None draws no band.
      high: [P], its upper end.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def draw_lines(
    name: str,
    alt: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_y: bool = False,
) -> str:
    """Lines over a number, as epochs or iterations.

    Args:
      name: of the drawing, unique in the page.
      alt: what it shows, in words.
      series: lines; the first five differ in colour and dashes.
      x_label: of the axis.
      y_label: of the axis.
      log_y: whether the axis is logarithmic.
    """

    def draw(axes):
        for number, line in enumerate(series):
            look = _look(number)
            mark = _MARKS[number % len(_MARKS)] if len(line.x) <= 12 else None
            axes.plot(line.x, line.y, label=line.name, marker=mark, **look)
            if line.low is not None:
                axes.fill_between(
                    line.x, line.low, line.high, color=look["color"], alpha=0.2, linewidth=0
                )
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if log_y:
            axes.set_yscale("log")
        _add_legend(axes, len(series))

    return _draw(name, alt, draw)


def draw_classes(
    name: str, alt: str, class_names: Sequence[str], series: Sequence[Series], *, y_label: str
) -> str:
    """A value of each class, classes side by side.

    Args:
      name: of the drawing, unique in the page.
      alt: what it shows, in words.
      class_names: [K], in the order of the axis.
      series: one y for each class; x is not used.
      y_label: of the axis, which begins at 0.
    """
    places = np.arange(len(class_names))
    few = len(places) <= _NAMED_CLASSES

    def draw(axes):
        for number, line in enumerate(series):
            mark = _MARKS[number % len(_MARKS)] if few else None
            axes.plot(places, line.y, label=line.name, marker=mark, **_look(number))
        axes.set(xlabel=_ORDERED, ylabel=y_label, ylim=(0, 104))
        _name_classes(axes.xaxis, class_names)
        _add_legend(axes, len(series))

    return _draw(name, alt, draw)


def draw_counts(name: str, alt: str, class_names: Sequence[str], counts: Sequence[int]) -> str:
    """Bars of the number of training images, from the largest class to the smallest.

    Args:
      name: of the drawing, unique in the page.
      alt: what it shows, in words.
      class_names: [K], in the order of the axis.
      counts: [K].
    """

    def draw(axes):
        few = len(counts) <= _NAMED_CLASSES
        bars = axes.bar(
            np.arange(len(counts)), counts, color=style.SERIES[0], width=0.8 if few else 1.0
        )
        if few:
            axes.bar_label(bars, fontsize=9, padding=1)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel=_ORDERED, ylabel="training images")
        _name_classes(axes.xaxis, class_names)

    return _draw(name, alt, draw)


def draw_matrix(name: str, alt: str, class_names: Sequence[str], shares: np.ndarray) -> str:
    """A matrix of confusions.

    Args:
      name: of the drawing, unique in the page.
      alt: what it shows, in words.
      class_names: [K], in the order of rows and columns.
      shares: float [K, K] in percent; rows are true classes.
    """

    def draw(axes):
        top = max(float(shares.max()), 1.0)  # of many classes none may come near 100 %
        shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=top, interpolation="none")
        axes.grid(visible=False)
        _name_classes(axes.xaxis, class_names)
        _name_classes(axes.yaxis, class_names)
        axes.set(xlabel="predicted", ylabel="true class")
        bar = axes.figure.colorbar(shown, shrink=0.85, label="% of the images of the true class")
        bar.outline.set_visible(False)
        if len(class_names) <= _NUMBERS_IN_CELLS:
            for row, column in np.ndindex(*shares.shape):
                color = "black" if shares[row, column] > top / 2 else "white"
                axes.text(
                    column, row, f"{shares[row, column]:.0f}", color=color, fontsize=9,
                    ha="center", va="center",
                )  # fmt: skip

    return _draw(name, alt, draw, size=(5.5, 4.8))


def _draw(name, alt, draw, size=_SIZE):
    """The SVG element of what `draw` puts on the axes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": name}), warnings.catch_warnings():
        # Matplotlib measures letters with a font of its own; the browser has others to draw them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        canvas.print_svg(buffer, metadata={"Date": None})
    return _embed(buffer.getvalue(), name, alt)


def _embed(text, name, alt):
    """Matplotlib's file as an element of a page: no header, own names, colours of the page."""
    view = re.search(r'viewBox="([^"]*)"', text)[1]
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\1{name}-", body)
    body = body.replace(f"'{_FONT}', ", "system-ui, ")
    body = re.sub(r"\n\s*", "\n", body)
    for color, variable in style.VARIABLES.items():
        body = body.replace(color, variable)
    label = markup.escape(alt)
    return f'<svg class="chart" role="img" aria-label="{label}" viewBox="{view}">{body.strip()}'


def _look(number):
    return {
        "color": style.SERIES[number % len(style.SERIES)],
        "linestyle": _DASHES[number % len(_DASHES)],
    }


def _add_legend(axes, count):
    if count > 1:
        axes.figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper left", ncols=2,
            handlelength=2.4, columnspacing=1.2,
        )  # fmt: skip


def _name_classes(axis, names):
    """Names of the classes along an axis, or their places in the order where they are too many."""
    if len(names) > _NAMED_CLASSES:
        axis.get_major_locator().set_params(integer=True)
        return
    shown = [_shorten(markup.clean(name)) for name in names]
    longest = max(map(len, shown), default=0)
    axis.set_ticks(range(len(shown)), shown)
    if axis.axis_name == "x" and longest * len(shown) > 50:
        for label in axis.get_ticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")


def _shorten(name):
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
