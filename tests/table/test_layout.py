"""Breaks when a sheet hides what makes rows unlike, or repeats what they have in common."""

import dataclasses

from ltdd_jax.table.collecting import collect_lines
from ltdd_jax.table.layout import Entry, describe_setting, lay_out
from tests.table import golden, made_up


def column(sheet, title):
    return [row[sheet.header.index(title)].text for row in sheet.rows]


def test_blocks_are_tables_of_their_own():
    page = lay_out("A table", golden.LINES)
    where = "CIFAR-10-LT, imbalance factor 100, 10 images per class"
    assert [sheet.title for sheet in page.sheets] == [
        f"{where}. Block (i), labels stored with the images",
        f"{where}. Block (ii), labels of a teacher for every view",
    ]
    assert [len(sheet.rows) for sheet in page.sheets] == [2, 1]
    assert page.sheets[1].header[0] == "trained on"


def test_marks_lead_to_notes_and_references():
    page = lay_out("A table", golden.LINES)
    (entry,) = [e for row in page.sheets[0].rows for e in row if e.marks]
    assert entry == Entry("37.7 ± 0.6", ("1", "a", "b"))
    assert page.notes == {"a": "width 64 in place of 128", "b": "100 % | JPEG"}
    assert page.references == {"1": "A et al., 2024, arXiv 2408.14506"}


def test_equal_notes_have_one_mark_and_there_are_more_than_26():
    line = golden.LINES[1]
    lines = [
        *(dataclasses.replace(line, differences=(f"d{n}", "same")) for n in range(27)),
    ]
    notes = lay_out("A table", lines).notes
    assert list(notes)[:4] == ["a", "b", "c", "d"] and list(notes)[25:28] == ["z", "aa", "ab"]
    assert list(notes.values()).count("same") == 1


def test_what_all_rows_share_is_said_once_and_the_rest_in_columns():
    first, second = lay_out("A table", golden.LINES).sheets
    assert "Student: ConvNet, width 64." in first.caption and "student" not in first.header
    assert "over 2 networks" in first.caption and "seeds" not in first.header
    assert "Augmentation: crop, cutmix." in second.caption
    both = [dataclasses.replace(line, block="i") for line in golden.LINES]
    (sheet,) = lay_out("A table", both).sheets
    assert column(sheet, "augmentation") == ["DSA", "DSA", "crop, cutmix"]
    assert "Augmentation" not in sheet.caption


def test_forms_of_the_same_images_are_columns():
    line = dataclasses.replace(golden.LINES[1], beside={"distilled_8bit": {"mean": 38, "std": 2}})
    (sheet,) = lay_out("A table", [golden.LINES[0], line]).sheets
    assert column(sheet, "8-bit pixels")[1] == "38.0 ± 2.0" and "hard labels" not in sheet.header


def test_caption_says_when_training_images_judged():
    """Breaks when numbers from held-out training images can be taken for those of the test set."""
    captions = []
    for judge in ("test", "held_out"):
        (job,) = made_up.make_all("datm", overrides={"data.judge": judge})
        lines = collect_lines([(job, made_up.make_report(50.0))], lambda *cell, **more: None)
        captions.append(lay_out("t", lines).sheets[0].caption)
    assert "in % on the test set, mean" in captions[0]
    assert "in % on held-out training images, every class counting the same" in captions[1]
    assert "the test set was not read" in captions[1]


def test_groups_without_classes_have_no_column():
    (first, _) = lay_out("A table", golden.LINES).sheets
    assert [title for title in first.header if "(" in title or title == "medium"] == [
        "many (> 100)", "medium",
    ]  # fmt: skip


def test_reports_without_the_newer_fields_can_be_shown():
    """Reports of earlier runs do not say what was stored."""
    (job,) = made_up.make_all("datm")
    lines = collect_lines([(job, made_up.make_report(50.0))], lambda *cell, **more: None)
    (sheet,) = lay_out("A table", lines).sheets
    assert column(sheet, "ours") == ["30.0 ± 0.5", "50.0 ± 0.5", "80.0 ± 0.5"]
    assert column(sheet, "images stored / seen")[1:] == ["100 / 100", "12,406 / 12,406"]
    assert "labels" not in sheet.header and "published" not in sheet.header


def test_settings_are_named_as_the_literature_names_them():
    assert describe_setting(("cifar100", True, 20.0, 1, 3)) == (
        "CIFAR-100-LT, imbalance factor 20, 1 image per class"
    )
    assert describe_setting(("tfds:x", False, 100.0, 5, 3), with_seed=True) == (
        "tfds:x, 5 images per class, seed 3"
    )


def test_an_empty_table_can_be_written():
    assert lay_out("A table", ()).sheets == ()
