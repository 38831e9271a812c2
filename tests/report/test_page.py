"""Breaks when report.html is no whole page, needs the network, or shows what is not so."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from ltdd_jax.report import page
from tests.report import made_up

_VOID = {"meta", "img", "link", "br", "hr", "input"}
_EVIL = ["<script>alert(1)</script>", "$x$", '"quoted" & co', "a'b", "new\nline", "日本", "a" * 90]


class Parser(html.parser.HTMLParser):
    """Every element with its attributes, the text, and what was opened and not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)

    def find(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


def render(num_classes=10, names=None, *, report=None, **changes):
    pictures = changes.pop("pictures", None) or made_up.make_pictures(num_classes)
    made = made_up.make_report(num_classes, names, **(report or {}))
    return page.render_page(made, made_up.make_material(pictures, **changes))


@pytest.fixture(scope="module")
def text():
    return render()


def test_page_is_whole_and_its_contents_lead_to_every_section(text):
    parser = Parser(text)
    assert parser.open == [] and text.startswith("<!DOCTYPE html>")
    assert parser.find("html") == [{"lang": "en"}]
    assert [tag for tag, _ in parser.elements if tag in {"header", "main", "footer", "nav", "h1"}]
    sections = [attrs["id"] for attrs in parser.find("section")]
    links = [attrs["href"] for attrs in parser.find("a") if attrs["href"].startswith("#")]
    assert links == [f"#{name}" for name in sections]
    assert sections == [
        "results", "classes", "images", "confusion", "experts", "distillation", "use", "cost",
        "settings",
    ]  # fmt: skip
    names = [attrs["id"] for _, attrs in parser.elements if "id" in attrs]
    assert len(names) == len(set(names))  # drawings of the same program do not share names


def test_page_says_who_judged(text):
    """Breaks when a number from held-out training images can be taken for one of the test set."""
    page = render(report={"held_out": 321})
    assert "Judged on 321 held-out training images; the test set was not read" in page
    assert "in % on held-out training images, mean" in page
    assert "Last snapshots on held-out training images" in page
    assert "in % on the test set, mean" in text and "held-out training images;" not in text


def test_page_needs_no_network_and_no_script(text):
    parser = Parser(text)
    assert not parser.find("script") and not parser.find("link") and not parser.find("iframe")
    for tag, attrs in parser.elements:
        for name in ("src", "href", "xlink:href", "data", "srcset", "poster"):
            value = attrs.get(name, "#")
            is_citation = tag == "a" and value.startswith("https://arxiv.org/abs/")
            assert is_citation or value.strip().startswith(("#", "data:image/")), (tag, value[:80])
        assert not any(name.startswith("on") for name in attrs)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_pictures_and_charts_say_what_they_show(text):
    parser = Parser(text)
    images, charts = parser.find("img"), parser.find("svg")
    assert len(images) == 2 * 2 * 10 and len(charts) == 6
    assert all(attrs["alt"].strip() for attrs in images)
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 30 for attrs in charts)
    alts = [attrs["alt"] for attrs in images]
    assert alts[0] == "class 0, image 1: the real image it started from"
    assert alts[1] == "class 0, image 1: distilled image"
    assert all(attrs.get("aria-label") for attrs in parser.find("table"))
    assert {attrs["scope"] for attrs in parser.find("th")} == {"col", "row"}


def test_names_of_classes_are_text_wherever_they_stand():
    """Breaks when a folder's name can put its own HTML into the page."""
    text = render(len(_EVIL), _EVIL)
    parser = Parser(text)
    assert parser.open == [] and not parser.find("script")
    assert "<script" not in text and "alert(1)" in text
    assert _EVIL[2] in "".join(parser.text)
    assert any(attrs["alt"].startswith(_EVIL[2]) for attrs in parser.find("img"))
    assert "new\nline" not in text and "new\N{REPLACEMENT CHARACTER}line" in text


def test_settings_and_plan_are_text_too():
    config = made_up.make_report()["config"] | {"name": "<b>", "data": {"path": "<i>"}}
    config["data"] |= {"source": "folder"}
    text = render(report={"config": config}, plan="<u>", workdir="<s>", reference="<tt>")
    for tag in ("b", "u", "s", "tt"):
        assert f"<{tag}>" not in text and f"&lt;{tag}&gt;" in text
    assert "&lt;i&gt;" in text


def test_page_follows_the_readers_light_or_dark_setting(text):
    style = text[text.index("<style>") : text.index("</style>")]
    assert "prefers-color-scheme: dark" in style and "color-scheme: light dark" in style
    charts = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "currentColor" in charts and "var(--s0)" in charts
    assert "#0a0b" not in charts  # a stand-in for a colour that nobody replaced
    used = set(re.findall(r"var\((--\w+)\)", text))
    light, dark = (set(re.findall(r"(--\w+):", part)) for part in style.split("@media", 1))
    assert used <= light and used <= dark


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_and_curves_stand_out_from_the_paper(text):
    """WCAG 2: 4.5 for text, 3 for what a chart is made of, in both settings."""
    style = text[text.index("<style>") : text.index("</style>")]
    for part in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colors = dict(re.findall(r"(--\w+): (#\w{6})", part))
        for paper in ("--paper", "--panel"):
            for name, least in {"--ink": 4.5, "--soft": 4.5, "--link": 4.5}.items() | {
                (f"--s{k}", 3.0) for k in range(5)
            }:
                pair = sorted(luminance(colors[x]) + 0.05 for x in (name, paper))
                assert pair[1] / pair[0] >= least, (name, paper)


def test_wide_tables_scroll_by_themselves(text):
    parser = Parser(text)
    assert len(parser.find("table")) == sum(
        attrs.get("class") == "scroll" for attrs in parser.find("div")
    )
    assert ".scroll { overflow-x: auto" in text and "width=device-width" in text


def test_classes_stand_from_the_most_frequent_to_the_rarest():
    """Breaks when accuracies, confusions or images are those of another class."""
    counts, names = [5, 500, 50], ["rare", "many", "some"]
    confusion = [[1, 9, 0], [0, 10, 0], [0, 2, 8]]
    text = render(3, names, report={"train_counts": counts}, confusion=confusion)
    assert re.findall(r"<h3>(\w+) <span class=soft>· (\d+)", text) == [
        ("many", "500"), ("some", "50"), ("rare", "5"),
    ]  # fmt: skip
    body = text[text.index('id="confusion"') : text.index('id="experts"')]
    cells = re.findall(r'<th scope="row">(\w+)</th><td>(\w+)</td><td>([\d.]+)', body)
    assert cells == [("rare", "many", "90.0"), ("some", "many", "20.0")]
    assert "63% of all images" in body  # 19 of 30
    table = text[text.index("The numbers of this chart") : text.index('id="images"')]
    rows = re.findall(r'<th scope="row">(\w+)</th><td>(\d+)</td><td>([\d.]+)', table)
    assert rows == [("many", "500", "50.0"), ("some", "50", "10.0"), ("rare", "5", "90.0")]


def test_what_is_missing_is_left_out():
    """A selection has no iterations, no images before and no experts; old results no confusions."""
    pictures = made_up.make_pictures(4, channels=1, initial=False)
    text = render(
        4,
        report={"rows": ("distilled", "random_real", "full_real"), "experts": False},
        pictures=pictures, confusion=None, expert_losses={}, distill_losses={}, flops={}, plan="",
    )  # fmt: skip
    parser = Parser(text)
    sections = [attrs["id"] for attrs in parser.find("section")]
    assert sections == ["results", "classes", "images", "use", "cost", "settings"]
    assert len(parser.find("img")) == 8
    assert all(attrs["alt"].endswith("selected real image") for attrs in parser.find("img"))
    assert "started from" not in text


def test_losses_without_accuracies_and_the_other_way_round_are_drawn():
    alone = render(report={"experts": False})
    assert "Lines of the training loss" in alone and "accuracy of the experts" not in alone
    other = render(expert_losses={})
    assert "Lines of the training loss" not in other and "accuracy of the experts" in other


def test_curve_is_drawn_with_its_warning():
    rows = ("distilled", "full_real", "iteration_000500", "iteration_001000")
    text = render(report={"rows": rows})
    assert "Best on the test set, as the literature reports it" in text
    assert "title of iteration" not in text


def test_program_of_the_page_names_the_directory_and_the_set():
    text = render(workdir="C:\\runs", set_name="five")
    assert "ltdd_jax.load_dataset(&#x27;C:\\\\runs&#x27;, set_name=&#x27;five&#x27;)" in text
    assert "sets/five/synthetic/synthetic.npz" in text


@pytest.mark.parametrize(
    ("timed", "shown"),
    [
        (
            ("experts", "distill", "evaluate"),
            {"teachers": "in experts", "baselines": "in evaluate"},
        ),
        (("distill", "evaluate"), {"experts": "–", "teachers": "–"}),  # noqa: RUF001
        (("experts",), {"evaluate": "–", "baselines": "–"}),  # noqa: RUF001
    ],
)
def test_stages_without_a_time_of_their_own_say_where_it_is(timed, shown):
    """Breaks when a time is looked for in a stage that it is no part of, or that was not timed."""
    flops = dict.fromkeys(("experts", "teachers", "distill", "evaluate", "baselines"), 1e9)
    text = render(report={"seconds": dict.fromkeys(timed, 7.0)}, flops=flops)
    cost = text[text.index('id="cost"') : text.index('id="settings"')]
    found = dict(re.findall(r'<th scope="row">(\w+)</th><td>([^<]*)</td>', cost))
    assert {stage: found[stage] for stage in shown} == shown
    assert list(found) == list(flops) and all(found[stage] == "7" for stage in timed)


@pytest.mark.parametrize("partition", [1, 2])
def test_program_of_the_page_takes_images_apart_where_they_hold_several(partition):
    """Breaks when it names images that hold several pictures as what a network is trained on."""
    pictures = dataclasses.replace(made_up.make_pictures(), partition=partition)
    found = render(pictures=pictures, workdir="runs/one")
    use = found[found.index('id="use"') : found.index('id="cost"')]
    several = partition > 1
    assert ("load_dataset(&#x27;runs/one&#x27;).expand()" in use) == several
    assert ("each holds 2 x 2 pictures" in use) == several


@pytest.mark.parametrize("relabel", ["none", "teacher", "views"])
def test_code_without_this_package_reads_the_labels_that_were_evaluated(relabel):
    """Breaks when labels of views are read as labels of images, or a file is named in vain."""
    config = made_up.make_report()["config"]
    config["labels"]["relabel"] = relabel
    name = "" if relabel == "none" else "labels-0123abcd.npz"
    found = html.unescape(render(report={"config": config}, labels_file=name))
    code = found[found.index("import numpy") : found.index("In runs/made up")]
    assert ("labels-0123abcd.npz" in code) == (relabel != "none")
    first, _, second = code.partition('np.load("synthetic/labels-0123abcd.npz")')
    assert ('arrays["label_logits"]' in first) == (relabel != "teacher")
    assert ('arrays["label_logits"]' in second) == (relabel == "teacher")
    assert ('arrays["views"]' in second) == (relabel == "views")


def test_reference_becomes_a_link(text):
    assert '<a href="https://arxiv.org/abs/2408.14506">arXiv 2408.14506</a>' in text


def test_page_repeats(text):
    """Breaks when two writings of the same result differ."""
    assert render() == text


@pytest.mark.parametrize(("num_classes", "per_class", "side"), [(200, 10, 64), (200, 10, 32)])
def test_page_of_many_classes_stays_small(num_classes, per_class, side):
    pictures = made_up.make_pictures(num_classes, per_class, side)
    text = render(num_classes, pictures=pictures)
    assert len(text.encode()) < 3e6
    assert text.count('<article class="class">') == num_classes
    assert f"of {per_class} images per class" in text and "exact ones" in text
