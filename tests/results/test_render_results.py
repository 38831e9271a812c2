"""Breaks when a page shows a number that results.csv does not have, or in a misleading place."""

import csv
import itertools
import re

import pytest

from ltdd_jax import literature
from ltdd_jax.types import UserError
from tests.results import made_up
from tests.results.made_up import make_number
from tests.scripts import load_script

measured = made_up.measured
render_results = load_script("render_results")
result_tables = load_script("result_tables")

COLUMNS = [
    "data", "imbalance_factor", "ipc", "width", "block", "labels", "method", "mean", "std",
    "seeds", "experts", "iterations", "stored_bytes", "published", "command", "commit",
]  # fmt: skip
RANDOM = make_number(30.0, "random_real", published=34.4, published_std=2.0,
                     published_source="Zhao et al.", method="random")  # fmt: skip
SETS = [
    make_number(45.0, run="dir/dm", over_random=15.0, wall_seconds=600.0, many=50.0),
    make_number(40.0, "initial", run="dir/dm"),
    make_number(39.0, "initial_at_baseline_rate", run="dir/dm"),
    make_number(29.98, run="dir/herding", over_random=-0.02, iterations=0),
]


def render(kind: str, numbers) -> list[list[str]]:
    """The cells of the first table, header first."""
    text = f"<!-- table: {kind} -->\n<!-- end of table -->"
    lines = result_tables.render_page(text, numbers).splitlines()
    table = itertools.takewhile(
        lambda line: line.startswith("|"),
        itertools.dropwhile(lambda line: not line.startswith("|"), lines),
    )
    rows = [line.strip("|").split(" | ") for line in table]
    return [[cell.strip() for cell in row] for row in rows if "---" not in row[0]]


def look_up(table, title: str) -> dict[str, str]:
    """Column -> cell of the row whose first cell is `title`."""
    (row,) = [row for row in table[1:] if row[0] == title]
    return dict(zip(table[0], row, strict=True))


# The files of this repository.


def read_file():
    with open(measured.RESULTS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_pages_show_what_the_file_says():
    """Breaks when a number of a table is written by hand, or was not made anew."""
    pages = [p.name for p in render_results.find_pages() if "<!-- table:" in p.read_text("utf-8")]
    assert pages[:2] == ["README.md", "digits.md"] and "index.md" in pages
    assert render_results.render_tables(write=False) == [], "run benchmarks/render_results.py"


def test_pictures_of_the_pages_exist():
    pictures = [
        x for page in render_results.find_pages() for x in render_results.find_pictures(page)
    ]
    assert len(pictures) > 1 and all(path.exists() for _, _, path in pictures)
    asked = {}
    for kind, words, path in pictures:  # two pages may show one file, and mean the same by it
        assert asked.setdefault(path.resolve(), (kind, words)) == (kind, words), path.name


def test_the_file_has_its_columns_in_order():
    header = measured.RESULTS.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header[:16] == COLUMNS


def test_every_number_says_how_it_came_about():
    rows = read_file()
    assert len(rows) > 100
    for row in rows:
        assert row["command"] and re.fullmatch(r"[0-9a-f]{7,40}", row["commit"]), row
        assert int(row["seeds"]) >= 5 or row["note"], row
        assert 0 < float(row["mean"]) <= 100 and row["block"] in ("i", "ii"), row
        assert row["pixels"] in ("original", "jpeg") and row["machine"], row


def test_published_numbers_are_those_of_the_literature():
    found = [row for row in read_file() if row["published"]]
    assert found
    for row in found:
        cell = (row["data"], float(row["imbalance_factor"]), int(row["ipc"]), row["method"])
        printed = literature.find(*cell, row["network"].removesuffix("_bn") or "convnet")
        assert float(row["published"]) == printed.mean, row


def test_accuracies_by_class_have_their_mean_in_the_other_file():
    """Breaks when one of the files has a run that the other lacks; test sets are balanced."""
    by_class: dict[tuple, list[float]] = {}
    for x in measured.read(measured.PER_CLASS, measured.ClassAccuracy):
        by_class.setdefault(x.of, []).append(x.accuracy)
    numbers = measured.read(measured.RESULTS)
    for of, accuracies in by_class.items():
        mean = sum(accuracies) / len(accuracies)
        rows = [r for r in numbers if of == (r.run, r.row, r.block, r.study, r.ipc, r.iterations)]
        assert any(abs(row.mean - mean) < 0.02 for row in rows), of


def test_blocks_share_no_table():
    for page in render_results.find_pages():
        for match in result_tables.MARKER.finditer(page.read_text(encoding="utf-8")):
            block = dict(word.split("=", 1) for word in match[2].split())["block"]
            other = {"i": "Block (ii)", "ii": "Block (i)"}[block]
            assert other not in match[3], (page.name, match[0][:60])
            labels = set(re.findall(r"\| (ST|SE) \|", match[3]))
            assert block == "ii" or not labels, page.name


# Made-up numbers.


def test_a_row_stands_beside_its_start_and_random_images():
    table = render("cells block=i data=cifar10", [*reversed(SETS), RANDOM])
    assert [row[0] for row in table[1:]] == ["random real images", "herding", "DM"]
    dm = look_up(table, "DM")
    assert dm["accuracy"] == "45.0 ± 0.5" and dm["over random"] == "+15.0"
    assert dm["before the first iteration"] == "40.0 ± 0.5 / 39.0 ± 0.5"
    assert (dm["time"], dm["kB stored"], dm["iterations"]) == ("10 min", "2.0", "100")
    herding = look_up(table, "herding")
    assert herding["before the first iteration"] == "–" and herding["over random"] == "+0.0"  # noqa: RUF001


def test_published_numbers_have_a_column_of_their_own():
    """Breaks when a number of others reads as if it were ours."""
    table = render("cells block=i", [RANDOM, *SETS])
    random = look_up(table, "random real images")
    assert random["accuracy"] == "30.0 ± 0.5"
    assert random["published (width 128, GPU)"] == "34.4 ± 2.0 (Zhao et al.)"
    assert "published (width 128, GPU)" not in render("cells block=i", SETS)[0]


def test_columns_without_numbers_are_left_out():
    header = render("cells block=i", [RANDOM, *SETS])[0]
    assert "many (> 100)" in header and not {"medium", "experts", "views"} & set(header)


def test_every_setting_has_its_table_and_studies_have_none_of_them():
    numbers = [*SETS, make_number(50.0, width=64), make_number(60.0, study="steps"),
               make_number(70.0, network="vit")]  # fmt: skip
    text = result_tables.render_page(
        "<!-- table: cells block=i -->\n<!-- end of table -->", numbers
    )
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    cell = "CIFAR-10-LT, imbalance factor 100, 10 images per class, width"
    assert headings == [f"{cell} 32", f"{cell} 64"]
    assert "60.0" not in text and "70.0" not in text


def test_commands_are_numbered_and_notes_lettered():
    numbers = [
        RANDOM,
        *SETS[:1],
        make_number(41.0, run="dir/mtt", note="one & half", command="a<b"),
    ]
    text = result_tables.render_page(
        "<!-- table: cells block=i -->\n<!-- end of table -->", numbers
    )
    commands = re.findall(r"<li><code>(.*?)</code> \(commit abc1234\)</li>", text)
    assert commands == ["make dir/dm", "a&lt;b"]
    assert "MTT [a]" in text and "- [a] one & half" in text


def test_jpeg_pixels_are_said():
    numbers = [make_number(41.0, pixels="jpeg")]
    text = result_tables.render_page(
        "<!-- table: cells block=i -->\n<!-- end of table -->", numbers
    )
    assert "width 32 (JPEG pixels)" in text and "of a JPEG copy" in text


def test_a_study_lists_its_variants_by_number():
    numbers = [
        make_number(mean, study="storage", block="ii", labels="SE", views=views,
                    variant=f"{views} views", stored_bytes=1000 * views)
        for mean, views in ((54.0, 200), (36.0, 5), (48.0, 50))
    ]  # fmt: skip
    table = render("study study=storage block=ii", numbers)
    assert [row[0] for row in table[1:]] == ["5 views", "50 views", "200 views"]
    assert look_up(table, "50 views")["kB stored"] == "50.0"


def test_a_teacher_of_several_variants_stands_there_once():
    teachers = [make_number(mean, "teacher", study="x", block="ii", variant=variant)
                for mean, variant in ((65.0, "a"), (65.0, "b"), (70.0, "c"))]  # fmt: skip
    table = render("study study=x block=ii", teachers)
    title = "teacher: the whole training set"
    assert [row[0] for row in table[1:]] == [title, f"{title}, c"]


def test_a_teacher_of_several_variants_is_called_what_they_share():
    """Breaks when two teachers of one study cannot be told apart."""
    variants = [f"two, {epochs} epochs, network {i}" for epochs in (2, 6) for i in (1, 2)]
    teachers = [
        make_number(60.0 + i % 2, "teacher", study="x", block="ii", variant=variant)
        for i, variant in enumerate(variants)
    ]
    table = render("study study=x block=ii", teachers)
    title = "teacher: the whole training set, two, network"
    assert [row[0] for row in table[1:]] == [f"{title} 1", f"{title} 2"]


def test_a_curve_goes_from_the_start_to_the_set():
    numbers = [*SETS, make_number(43.0, "iteration", run="dir/dm", study="curve", iterations=50)]
    (header, row) = render("curve block=i", numbers)
    assert header[1:4] == ["0", "50", "the set itself"]
    assert row[1:4] == ["40.0 ± 0.5", "43.0 ± 0.5", "45.0 ± 0.5 (100)"]


def test_other_networks_stand_beside_random_images_on_them():
    numbers = [
        make_number(42.0, network="vit", study="networks"),
        make_number(31.0, "random_real", network="vit", study="networks"),
        RANDOM,
    ]
    (header, row) = render("networks block=i", numbers)
    found = dict(zip(header, row, strict=True))
    assert (found["network"], found["over random"]) == ("vit", "+11.0")


def test_a_summary_keeps_the_order_that_the_page_gives():
    numbers = [RANDOM, *SETS, make_number(80.0, "full_real")]
    table = render("summary block=i rows=dir/herding,dir/dm", numbers)
    assert [row[1] for row in table[1:]] == ["herding", "DM"]
    row = dict(zip(table[0], table[2], strict=True))
    assert row["random real"] == "30.0 ± 0.5" and row["whole training set"] == "80.0 ± 0.5"


@pytest.mark.parametrize(
    ("more", "shown"),
    [({}, "80.0 ± 0.5"), ({"width": 16}, None), ({"imbalance_factor": 7.0}, None)],
)
def test_a_summary_finds_the_whole_training_set_in_other_directories(more, shown):
    """Breaks when it stands beside sets of other data or networks, or is not found."""
    numbers = [RANDOM, *SETS, make_number(80.0, "full_real", run="elsewhere", **more)]
    table = render("summary block=i rows=dir/dm", numbers)
    assert dict(zip(table[0], table[1], strict=True)).get("whole training set") == shown


def test_a_summary_says_what_no_column_does():
    """Breaks when two networks pass for five, or a set for one that needs no experts."""
    numbers = [
        make_number(28.0, "random_real", seeds=2, note="two"),
        make_number(45.0, run="dir/herding", experts=8, wall_seconds=1.0),
        make_number(40.0, run="dir/dam_ed", experts=8, wall_seconds=28.0, expert_seconds=30.0),
        make_number(33.0, "initial", run="dir/dam_ed", seeds=2, note="two"),
        make_number(35.0, run="dir/dm", experts=0, wall_seconds=19.0),
    ]
    table = render("summary block=i rows=dir/herding,dir/dam_ed,dir/dm", numbers)
    assert [row[-1] for row in table[1:]] == ["shared + 1 s", "30 s + 28 s", "19 s"]
    rows = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    assert {row["random real"] for row in rows} == {"28.0 ± 0.5 (2 networks)"}
    assert rows[1]["before the first iteration"] == "33.0 ± 0.5 (2 networks)"
    assert rows[1]["accuracy"] == "40.0 ± 0.5"


def test_cost_is_sorted_by_time():
    numbers = [*SETS, make_number(35.0, run="dir/dc", wall_seconds=42.0, flops=3e12)]
    table = render("cost block=i", numbers)
    assert [row[0] for row in table[1:]] == ["DC", "DM"]
    assert look_up(table, "DC")["TFLOP"] == "3.0" and look_up(table, "DM")["the set"] == "10 min"


def test_the_plan_is_that_of_the_file():
    """Breaks when columns of cost.csv are swapped, or work is not shown in PFLOP and hours."""
    table = render("plan block=i", [])
    row = look_up(table, "DAM + ED")
    assert row["experts and teachers, PFLOP"] == "80.6"
    assert row["the set and its evaluation, PFLOP"] == "146.9"
    assert row["hours at 10 TFLOP/s"] == "6.32"
    assert look_up(table, "DM")["experts and teachers, PFLOP"] == result_tables.say.ABSENT


def test_text_outside_of_the_comments_stays():
    comment = "<!-- table: cells block=i -->"
    page = f"# A\n\n1.0 ± 2\n\n{comment}\nold\n<!-- end of table -->\n\nafter\n"
    once = result_tables.render_page(page, SETS)
    assert once.startswith(f"# A\n\n1.0 ± 2\n\n{comment}\n") and once.endswith("-->\n\nafter\n")
    assert "old" not in once and result_tables.render_page(once, SETS) == once


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("cell block=i", "there is no table cell; give one of cells, study"),
        ("cells block=i wide=32", "unknown option wide"),
        ("cells", "block=i or block=ii is missing"),
        ("cells block=iii", "block=i or block=ii is missing"),
        ("cells block=i width=64", "no number in results.csv is of this kind"),
        ("study block=i", "needs study=NAME"),
        ("summary block=i rows=dir/mtt", "has no such set"),
    ],
)
def test_a_comment_that_stands_for_nothing_is_refused(comment, words):
    with pytest.raises(UserError, match=words):
        render(comment, SETS)


@pytest.mark.parametrize(
    ("other", "words"),
    [({"block": "ii"}, "both blocks"), ({"judge": "held_out", "study": "x"}, "different judges")],
)
def test_what_is_never_compared_shares_no_table(other, words):
    with pytest.raises(UserError, match=words):
        result_tables.table([*SETS, make_number(50.0, **other)], SETS)


def test_a_study_that_training_images_judged_says_so():
    comment = "<!-- table: study study=x block=i -->\n<!-- end of table -->"
    text = result_tables.render_page(comment, [make_number(50.0, judge="held_out", study="x")])
    assert "Held-out training images judge, not the test set" in text


def test_a_row_may_not_stand_there_twice():
    with pytest.raises(UserError, match="twice"):
        measured.check([SETS[0], SETS[0]])
