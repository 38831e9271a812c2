"""Breaks when a number stands in the wrong block, beside another's number, or unmarked."""

import dataclasses

import pytest

from ltdd_jax import literature
from ltdd_jax.table.collecting import collect_lines
from tests.table import made_up


def collect(*methods, reports=None, find=literature.find, **more):
    jobs = made_up.make_all(*methods, **more)
    reports = reports or [made_up.make_report(50.0) for _ in jobs]
    return collect_lines(zip(jobs, reports, strict=True), find)


def shown(lines):
    return [(x.block, x.title) for x in lines if x.kind != "initial"]


def with_second(mean, random, teacher=62.9):
    several = {"mean": teacher, "balanced": teacher, "nets": 2}
    more = {
        "ii_distilled": made_up.make_summary(mean, block="ii", teacher=several),
        "ii_random_real": made_up.make_summary(random, block="ii", teacher=several),
    }
    return made_up.make_report(50.0, **more)


def test_each_block_begins_with_random_real_images():
    lines = collect("mtt", "datm", reports=[with_second(55.0, 54.0)] * 2)
    assert shown(lines) == [
        ("i", "random real images"), ("i", "MTT"), ("i", "DATM"), ("i", "whole training set"),
        ("ii", "random real images"), ("ii", "MTT"), ("ii", "DATM"),
    ]  # fmt: skip


def test_gains_are_over_random_images_of_the_same_block():
    lines = collect("mtt", reports=[with_second(55.0, 54.0)])
    gains = {x.row: x.over_random for x in lines}
    assert gains == {
        "random_real": None, "full_real": None, "ii_random_real": None,
        "distilled": 20.0, "initial": 15.0, "ii_distilled": 1.0,
    }  # fmt: skip


def test_a_gain_of_the_report_comes_first():
    """It is over random images with labels of the same kind, which may be soft."""
    summary = made_up.make_summary(50.0, ior=1.5)
    lines = collect("mtt", reports=[made_up.make_report(50.0, distilled=summary)])
    assert [x.over_random for x in lines if x.row == "distilled"] == [1.5]


def test_other_forms_of_the_same_images_stand_beside_them():
    more = {
        "distilled_hard": made_up.make_summary(41.0),
        "distilled_8bit": made_up.make_summary(49.0),
        "random_real_soft": made_up.make_summary(36.0),
    }
    lines = collect("mtt", reports=[made_up.make_report(50.0, **more)])
    (line,) = [x for x in lines if x.row == "distilled"]
    assert {name: x["mean"] for name, x in line.beside.items()} == {
        "distilled_hard": 41.0, "distilled_8bit": 49.0,
    }  # fmt: skip
    assert [x.title for x in lines][:2] == ["random real images", "random real images, soft labels"]


def test_the_teacher_of_a_block_is_what_labels_its_rows():
    """Breaks when the accuracy of one of several teachers is shown for that of their mean logits,
    or none is, or one stands beside block (i).
    """
    each = {f"teacher_{n}": {"mean": 60.0 + n} for n in (1, 2)}  # as reports name several
    lines = collect("mtt", reports=[with_second(55.0, 54.0) | {"teachers": each}])
    assert {x.teacher for x in lines if x.block == "ii"} == {62.9}
    assert {x.teacher for x in lines if x.block == "i"} == {None}


def test_settings_do_not_mix():
    jobs = [
        *made_up.make_all("mtt"),
        *made_up.make_all("mtt", argument="if100_ipc50"),
        *made_up.make_all("mtt", argument="if10_ipc10"),
    ]
    reports = [made_up.make_report(mean, mean - 5) for mean in (50, 60, 70)]
    lines = collect_lines(zip(jobs, reports, strict=True), literature.find)
    assert [(x.setting[2:4], x.summary["mean"]) for x in lines if x.kind != "initial"] == [
        *(((100.0, 10), mean) for mean in (45, 50, 80)),
        *(((100.0, 50), mean) for mean in (55, 60, 80)),
        *(((10.0, 10), mean) for mean in (65, 70, 80)),
    ]


def test_random_images_of_another_protocol_say_whose_they_are():
    """The common row comes first; a method whose evaluation differs keeps its own."""
    reports = [made_up.make_report(50.0, random) for random in (31.0, 30.0, 30.0)]
    lines = collect("mtt", "datm", "dam_ed", reports=reports)
    random = [(x.title, x.summary["mean"]) for x in lines if x.kind == "random_real"]
    assert random == [("random real images", 30.0), ("random real images, as for mtt", 31.0)]


# Typed from Zhao et al., CVPR 2025: CIFAR-10-LT, imbalance factor 100, 10 images per class.
@pytest.mark.parametrize(
    ("method", "mean", "std"),
    [("mtt", 37.7, 0.6), ("datm", 37.3, 0.2), ("dam_ed", 53.4, 0.1), ("random", 34.4, 2.0)],
)
def test_published_numbers_stand_beside_ours(method, mean, std):
    lines = collect(method)
    (line,) = [x for x in lines if x.row == "distilled"]
    assert (line.published.mean, line.published.std) == (mean, std)
    assert "CVPR 2025" in line.published.source
    (random,) = [x for x in lines if x.row == "random_real"]
    assert (random.published.mean, random.published.std) == (34.4, 2.0)
    assert all(x.published is None for x in lines if x.kind in ("initial", "full_real"))


def test_another_cell_has_another_number_and_an_unpublished_one_none():
    lines = collect("dam_ed", argument="if10_ipc50")
    assert [x.published.mean for x in lines if x.row == "distilled"] == [70.5]
    lines = collect("dam_ed", overrides={"distill.ipc": 7})
    assert [x.published for x in lines if x.row == "distilled"] == [None]
    lines = collect("dam_ed", overrides={"data.subset": "as_is"})
    assert [x.published for x in lines if x.row == "distilled"] == [None]


def test_some_classes_of_a_data_set_have_no_published_number():
    """Breaks when a number on all classes stands beside ours on a part of them."""
    some = made_up.make_report(50.0) | {"train_counts": [100] * 9}
    assert [x.published for x in collect("dam_ed", reports=[some])] == [None] * 4


def test_numbers_published_with_labels_of_a_teacher_stand_in_the_second_block():
    """Breaks when RLDD's 62.7, for which a teacher labelled every view, stands in block (i)."""
    lines = collect("mtt", reports=[with_second(55.0, 54.0)])
    of_rldd = dataclasses.replace(made_up.make_all("mtt")[0].cell, method="rldd", title="RLDD")
    job = dataclasses.replace(made_up.make_all("mtt")[0], cell=of_rldd)
    found = collect_lines([(job, with_second(55.0, 54.0))], literature.find)
    published = {x.row: x.published and x.published.mean for x in found}
    assert published["distilled"] is None and published["ii_distilled"] == 62.7
    (taught,) = [x for x in found if x.row == "ii_distilled"]
    assert taught.differences == (_PROTOCOL,)
    published = {x.row: x.published and x.published.mean for x in lines}
    assert published["distilled"] == 37.7 and published["ii_distilled"] is None
    assert published["random_real"] == 34.4 and published["ii_random_real"] is None


_SELECTION = (
    "published number: best of 21 evaluations on the test set, one network each; ours: the last "
    "iterate"
)


_PROTOCOL = (
    "published number: students trained as its paper does; ours: as the section student says, the "
    "same for all rows"
)


def test_differences_of_the_set_up_are_told():
    overrides = {
        **made_up.NARROW,
        "trajectory.num_iterations": 500,
        "evaluation.num_epochs": 300,
        "evaluation.num_seeds": 3,  # a column
        "runtime.log_steps": 7,  # changes nothing
        "data.memory": "load",  # nor does this
        "runtime.precision": "tf32",
        "selection.budget": "proportional",  # of other methods
        "experts.classifier.num_epochs": 3,  # not trained for this method
        "teacher.num_epochs": 3,  # not asked by it
    }
    lines = collect("dam_ed", overrides=overrides, notes=("pictures are JPEG files",))
    (line,) = [x for x in lines if x.row == "distilled"]
    assert set(line.differences) == {
        "width of the network 64 in place of 128",
        "experts 10 in place of 100",
        "epochs of the experts 80 in place of 100",
        "iterations 500 in place of 10001",
        "epochs of the evaluation 300 in place of 1000",
        "runtime.precision tf32 in place of float32",
        _SELECTION,
        "pictures are JPEG files",
    }
    (random,) = [x for x in lines if x.row == "random_real"]
    assert set(random.differences) == {
        "width of the network 64 in place of 128",
        "epochs of the evaluation 300 in place of 1000",
        "runtime.precision tf32 in place of float32",
        "pictures are JPEG files",
    }


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("dc", ("images not whitened", "without augmentation")),
        ("idm", ("images not whitened",)),
        ("dream", ("images not whitened", "batches of 64", "CutMix")),
    ],
)
def test_numbers_published_under_another_protocol_are_marked(method, words):
    """Breaks when a number of students that were trained otherwise stands unmarked beside ours."""
    (line,) = [x for x in collect(method) if x.row == "distilled"]
    (difference,) = line.differences
    assert difference.startswith("published number: ")
    said, ours = difference.split("; ours: ")
    assert all(word in said for word in words) and "evaluation" in ours


def test_numbers_published_under_our_protocol_are_not_marked():
    for method in ("mtt", "datm", "random"):
        lines = collect(method)
        assert [x.differences for x in lines if x.row in ("distilled", "random_real")] == [(), ()]


def test_teachers_belong_to_the_set_up_where_they_are_asked():
    (job,) = made_up.make_all("dam_ed", overrides={"teacher.num_epochs": 3})
    report = made_up.make_report(50.0) | {"teachers": {"teacher": {"mean": 60.0}}}
    lines = collect_lines([(job, report)], literature.find)
    told = [x.differences for x in lines if x.row == "distilled"]
    assert told == [("teacher.num_epochs 3 in place of 200", _SELECTION)]


def test_without_a_published_number_there_is_nothing_to_differ_from():
    lines = collect("ftd", overrides=made_up.NARROW)
    assert all(x.differences == () for x in lines if x.row == "distilled")


def test_rows_can_have_titles_of_their_own():
    lines = collect("mtt", title="MTT, another rate")
    titles = {x.row: x.title for x in lines}
    assert titles["distilled"] == "MTT, another rate"
    assert titles["initial"] == "MTT, another rate: a row"
