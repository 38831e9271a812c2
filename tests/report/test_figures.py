"""Breaks when a chart does not draw what it is given, or not as part of a page."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ltdd_jax.report import figures
from ltdd_jax.report.figures import Series

_XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def parse(svg):
    return ElementTree.fromstring(svg.replace("<svg ", f"<svg {_XLINK} ", 1))


def points(svg, color):
    """Corners of the curve of a colour, as [P, 2]; the drawing's y grows downwards."""
    paths = [
        element.get("d")
        for element in parse(svg).iter()
        if element.get("clip-path") and f"stroke: {color}" in element.get("style", "")
    ]
    assert len(paths) == 1
    return np.array(re.findall(r"[ML] (\S+) (\S+)", paths[0]), float)


def test_lines_go_where_the_numbers_are():
    """Breaks when axes are exchanged or a series takes another's colour."""
    one = Series("one", [0, 1, 2, 4], [0.0, 1.0, 0.5, 1.0])
    two = Series("two", [0, 4], [1.0, 0.0])
    svg = figures.draw_lines("n", "alt", [one, two], x_label="x", y_label="y")
    found = points(svg, "var(--s0)")
    left, bottom = found[0]
    right, top = found[-1]
    expected = np.stack([left + (right - left) * np.array(one.x) / 4,
                         bottom + (top - bottom) * np.array(one.y)], axis=1)  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(points(svg, "var(--s1)"), [[left, top], [right, bottom]], atol=1e-3)


def test_bars_are_as_high_as_the_counts():
    svg = figures.draw_counts("n", "alt", ["a", "b", "c"], [100, 50, 25])
    bars = [
        np.array(re.findall(r"[ML] (\S+) (\S+)", element.get("d")), float)
        for element in parse(svg).iter("path")
        if "fill: var(--s0)" in element.get("style", "")
    ]
    heights = [np.ptp(bar[:, 1]) for bar in bars]
    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 0.5, 0.25], atol=1e-3)


def test_matrix_has_its_numbers_while_they_can_be_read():
    shares = np.array([[80.0, 20.0], [3.0, 97.0]])
    small = figures.draw_matrix("n", "alt", ["a", "b"], shares)
    texts = [x.text for x in parse(small).iter("text")]
    places = texts.index("80")  # the scale beside the matrix comes later
    assert texts[places : places + 4] == ["80", "20", "3", "97"]
    large = figures.draw_matrix("n", "alt", [str(k) for k in range(40)], np.full((40, 40), 33.0))
    assert "33" not in [x.text for x in parse(large).iter("text")]


@pytest.mark.parametrize("num_classes", [1, 2, 24, 25, 1000])
def test_any_number_of_classes_is_drawn_small(num_classes):
    names = [f"a long name of class {k}" for k in range(num_classes)]
    series = [Series(str(k), range(num_classes), [50.0] * num_classes) for k in range(4)]
    svg = figures.draw_classes("n", "alt", names, series, y_label="accuracy")
    parse(svg)
    assert len(svg) < 200_000
    assert ("a long name…" in svg) == (num_classes <= 24)


def test_names_are_neither_formulas_nor_markup():
    svg = figures.draw_counts("n", 'a "quoted" <alt>', ["$x^2$", "<b>", "&", "漢字"], [4, 3, 2, 1])
    texts = [element.text for element in parse(svg).iter("text")]
    assert {"$x^2$", "<b>", "&", "漢字"} <= set(texts)
    assert parse(svg).get("aria-label") == 'a "quoted" <alt>'


def test_a_chart_of_constant_or_single_values_is_drawn():
    flat = Series("flat", [1], [2.0], [2.0], [2.0])
    parse(figures.draw_lines("n", "alt", [flat], x_label="x", y_label="y"))
