"""Breaks when table.html is no whole page, needs the network, or shows what is not so."""

import dataclasses

import pytest

from ltdd_jax.table import layout, page
from ltdd_jax.table.page import State
from tests.report.test_page import Parser
from tests.table import golden

STATES = (
    State("mtt", "finished", "a place/sets/mtt/report.html"),
    State("datm", "failed: <b>no</b> data"),
    State("dam_ed", "waiting"),
)


@pytest.fixture(scope="module")
def text():
    return page.render_page(layout.lay_out("A table", golden.LINES), STATES)


def cells(text):
    """The fields of all tables."""
    parts = text.replace("</td>", "</th>").split("</th>")
    return [part.rpartition(">")[2] for part in parts[:-1]]


def test_the_page_is_whole_and_its_contents_lead_to_every_section(text):
    parser = Parser(text)
    assert parser.open == [] and text.startswith("<!DOCTYPE html>")
    sections = [attrs["id"] for attrs in parser.find("section")]
    links = [a["href"] for a in parser.find("a") if a["href"].startswith("#")]
    assert links == [f"#{name}" for name in sections]
    assert sections == [
        "cifar10-if100-ipc10-seed0-i", "cifar10-if100-ipc10-seed0-ii", "notes", "cells",
    ]  # fmt: skip
    assert parser.find("title") and "A table" in parser.text


def test_the_page_needs_no_network_and_no_script(text):
    parser = Parser(text)
    assert not any(parser.find(tag) for tag in ("script", "link", "iframe", "img"))
    outside = [a["href"] for a in parser.find("a") if not a["href"].startswith("#")]
    assert outside == ["https://arxiv.org/abs/2408.14506", "a%20place/sets/mtt/report.html"]


def test_the_fields_are_those_of_the_table(text):
    assert cells(text)[:30] == [
        "trained on", "labels", "ours", "published", "over random", "many (&gt; 100)", "medium",
        "images stored / seen", "kB of images / labels / teacher", "updates",
        "random real images", "H", "31.4 ± 0.2", layout.ABSENT, layout.ABSENT, "40.0",
        "10.0", "100 / 100",
        "307.2 / 0 / 0", "1,001",
        "MTT &amp; co_1", "S1", "38.5 ± 1.0", "37.7 ± 0.6 [1, a, b]", "+7.1", "50.0", "20.0",
        "100 / 100", "1,228.8 / 4.0 / 0", "1,001",
    ]  # fmt: skip
    assert "<dt>[b]</dt><dd>100 % | JPEG</dd>" in text


def test_cells_that_failed_or_wait_are_told(text):
    assert "1 of 3 cells is finished, 1 failed, 1 is waiting." in text
    assert "datm: failed: &lt;b&gt;no&lt;/b&gt; data" in text and "<b>" not in text


def test_an_empty_table_is_a_page_too():
    text = page.render_page(layout.lay_out("A table", ()), STATES[2:])
    assert Parser(text).open == [] and "0 of 1 cells are finished, 1 is waiting." in text


def test_hostile_titles_stay_text():
    line = dataclasses.replace(golden.LINES[0], title="<script>alert(1)</script>")
    text = page.render_page(layout.lay_out("<i>x</i>", [line]), STATES)
    assert not Parser(text).find("script") and not Parser(text).find("i")
