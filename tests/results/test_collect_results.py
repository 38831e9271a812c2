"""Breaks when a number comes into results.csv that no finished run has, or under another name."""

import csv
import json

import pytest

from tests.results import made_up
from tests.results.made_up import make_config, make_report, make_result, write_run
from tests.scripts import load_script

collect_results = load_script("collect_results")
measured = made_up.measured
COMMAND = f"{made_up.DIGITS} --config.distill.ipc=2"


def collect(tmp_path, *more: str, name: str = "", command: str = COMMAND) -> int:
    """The exit code of the script for the run in tmp_path/run."""
    arguments = [f"--workdir={tmp_path / 'run'}", f"--set={name}", f"--command={command}"]
    arguments += [f"--results={tmp_path}", "--commit=abc1234", "--machine=a machine"]
    return collect_results.main([*arguments, *more])


def read(tmp_path, name="results.csv"):
    """Rows of a file as dictionaries of text."""
    with open(tmp_path / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def find(tmp_path, row, **more):
    """The one row of that kind."""
    wanted = {"row": row} | more
    (found,) = [r for r in read(tmp_path) if all(r[k] == v for k, v in wanted.items())]
    return found


def test_a_finished_run_becomes_rows(tmp_path):
    write_run(tmp_path / "run", name="first")
    assert collect(tmp_path, name="first") == 0
    assert [row["row"] for row in read(tmp_path)] == ["random_real", "distilled", "initial"]
    row = find(tmp_path, "distilled")
    expected = {
        "data": "digits", "imbalance_factor": "20", "ipc": "2", "width": "32", "block": "i",
        "labels": "S1", "method": "dam_ed", "mean": "70", "std": "0.25", "seeds": "5",
        "experts": "8", "iterations": "300", "stored_bytes": "1080", "published": "",
        "command": COMMAND, "commit": "abc1234", "run": "run/first", "epochs": "201",
        "rate": "0.03", "over_random": "20", "many": "75", "few": "65", "wall_seconds": "12.5",
        "expert_seconds": "30", "pixels": "original", "machine": "a machine",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    start = find(tmp_path, "initial")
    assert (start["iterations"], start["over_random"], start["run"]) == ("0", "", "run/first")
    random = find(tmp_path, "random_real")
    assert (random["method"], random["run"], random["experts"]) == ("random", "run", "")


def test_accuracies_by_class_are_kept(tmp_path):
    write_run(tmp_path / "run", name="first")
    assert collect(tmp_path, name="first") == 0
    rows = [r for r in read(tmp_path, "per_class.csv") if r["row"] == "distilled"]
    found = [(r["run"], r["name"], r["training_images"], r["accuracy"]) for r in rows]
    assert found == [("run/first", "a", "100", "75"), ("run/first", "b", "5", "65")]


def test_sets_of_one_directory_share_their_random_images(tmp_path):
    """Breaks when these stand there twice, or take over the command of the second set."""
    write_run(tmp_path / "run", name="first")
    assert collect(tmp_path, name="first") == 0
    write_run(tmp_path / "run", make_report(make_config(argument="dm")), name="second")
    assert collect(tmp_path, name="second", command=f"{made_up.DIGITS}:dm") == 0
    assert len(read(tmp_path)) == 5 and find(tmp_path, "random_real")["command"] == COMMAND
    second = find(tmp_path, "distilled", method="dm")
    assert (second["run"], second["iterations"]) == ("run/second", "500")


def test_published_numbers_stand_with_their_cells(tmp_path):
    config = make_config("cifar10_lt", "if100_ipc10")
    write_run(tmp_path / "run", make_report(config, num_classes=10))
    command = "python -m ltdd_jax.main --config=configs/cifar10_lt.py:if100_ipc10"
    assert collect(tmp_path, "--pixels=jpeg", command=command) == 0
    published = {row["row"]: row["published"] for row in read(tmp_path)}
    assert published == {"random_real": "34.4", "distilled": "53.4", "initial": ""}
    row = find(tmp_path, "distilled")
    assert (row["published_std"], row["pixels"], row["run"]) == ("0.1", "jpeg", "run")


def test_a_part_of_the_classes_has_no_published_number(tmp_path):
    """Breaks when the number of a whole data set stands beside one of a few of its classes."""
    config = make_config("cifar10_lt", "if100_ipc10")
    write_run(tmp_path / "run", make_report(config, num_classes=9))
    command = "python -m ltdd_jax.main --config=configs/cifar10_lt.py:if100_ipc10"
    assert collect(tmp_path, "--pixels=jpeg", command=command) == 0
    assert {row["published"] for row in read(tmp_path)} == {""}


def test_block_ii_has_its_teacher_and_its_own_labels(tmp_path):
    taught = {"block": "ii", "stored_bytes": {"images": 1000, "labels": 0, "teacher": 500}}
    report = make_report(
        ii_distilled=make_result(90.0, ior=4.0, **taught | {"labels": "ST"}),
        ii_random_real=make_result(86.0, **taught | {"labels": "ST"}),
    )
    report["teachers"] = {
        "teacher": make_result(93.0, per_seed=[93.0], num_epochs=60),
        "observer": make_result(90.0),
    }
    write_run(tmp_path / "run", report)
    assert collect(tmp_path) == 0
    second = [row for row in read(tmp_path) if row["block"] == "ii"]
    assert [row["row"] for row in second] == ["random_real", "distilled", "teacher"]
    assert [row["labels"] for row in second] == ["ST", "ST", "H"]
    assert [row["stored_bytes"] for row in second] == ["1500", "1500", "500"]
    assert "one network" in second[2]["note"] and second[2]["seeds"] == "1"


@pytest.mark.parametrize(
    ("nets", "stored"), [(("mlp", "mlp"), "300"), (("mlp", "convnet"), "")], ids=["alike", "mixed"]
)
def test_several_teachers_stand_beside_what_they_say_together(tmp_path, nets, stored):
    """Breaks when one of them is taken for another, their mean is not told, or networks of two
    kinds are said to take as much room each.
    """
    taught = {
        "block": "ii",
        "stored_bytes": {"images": 1000, "labels": 0, "teacher": 600},
        "teacher": {
            "mean": 95.0,
            "balanced": 94.0,
            "nets": 2,
            "few": 80.0,
            "per_class": [95.0, 95.0],
        },
    }
    report = make_report(
        ii_distilled=make_result(90.0, **taught | {"labels": "ST"}),
        ii_random_real=make_result(86.0, **taught | {"labels": "ST"}),
    )
    report["teachers"] = {
        f"teacher_{i}": make_result(mean, per_seed=[mean], num_epochs=60)
        for i, mean in ((1, 93.0), (2, 92.0))
    }
    report["config"]["teacher"]["nets"] = nets
    write_run(tmp_path / "run", report)
    assert collect(tmp_path, "--study=x", "--variant=two teachers", "--unchecked") == 0
    found = {row["variant"]: row for row in read(tmp_path) if row["row"] == "teacher"}
    together = found["two teachers, mean of 2 networks"]
    assert (together["mean"], together["few"], together["stored_bytes"]) == ("95", "80", "600")
    assert together["seeds"] == "1" and "mean logits" in together["note"]
    for i, mean in ((1, "93"), (2, "92")):
        one = found[f"two teachers, network {i}"]
        assert (one["mean"], one["stored_bytes"]) == (mean, stored)
    by_class = [r["accuracy"] for r in read(tmp_path, "per_class.csv") if r["row"] == "teacher"]
    assert set(by_class) == {"95"} and len(by_class) == len(report["class_names"])


def test_labels_of_stored_views_say_how_many(tmp_path):
    config = make_config()
    config["labels"] |= {"relabel": "views", "views": 50}
    report = make_report(config, ii_distilled=make_result(80.0, block="ii", labels="SE"))
    write_run(tmp_path / "run", report)
    assert collect(tmp_path, "--unchecked", "--study=storage", "--variant=50 views") == 0
    row = find(tmp_path, "distilled", block="ii")
    assert (row["views"], row["study"], row["variant"]) == ("50", "storage", "50 views")
    assert find(tmp_path, "random_real")["variant"] == ""


def test_points_of_a_curve_and_other_networks_are_studies_of_their_own(tmp_path):
    report = make_report(
        iteration_000100=make_result(65.0),
        **{"distilled@resnet18_bn": make_result(40.0, network="resnet18_bn")},
        **{"random_real@convnet_adam": make_result(30.0, protocol="adam")},
    )
    write_run(tmp_path / "run", report)
    assert collect(tmp_path) == 0
    point = find(tmp_path, "iteration")
    assert (point["study"], point["iterations"], point["mean"]) == ("curve", "100", "65")
    others = [(r["row"], r["network"]) for r in read(tmp_path) if r["study"] == "networks"]
    assert others == [("random_real", "convnet, Adam"), ("distilled", "resnet18_bn")]
    assert find(tmp_path, "distilled", network="")["mean"] == "70"


@pytest.mark.parametrize(("epochs", "more", "expected"),
                         [(2, (), 0), (2, ("--full",), 1), (101, (), 1)])  # fmt: skip
def test_a_whole_training_set_must_have_been_trained_on(tmp_path, epochs, more, expected):
    """Breaks when one or two epochs, given to save time, become a number."""
    write_run(tmp_path / "run", make_report(full_real=make_result(90.0, num_epochs=epochs)))
    assert collect(tmp_path, *more) == 0
    assert sum(row["row"] == "full_real" for row in read(tmp_path)) == expected


def test_some_rows_can_be_taken_alone(tmp_path, capsys):
    """Breaks when a row that was missing brings others along that contradict those in the file."""
    home = write_run(tmp_path / "run")
    assert collect(tmp_path) == 0
    report = make_report(distilled=make_result(71.0), full_real=make_result(90.0, num_epochs=21))
    (home / "report.json").write_text(json.dumps(report))
    assert collect(tmp_path, "--rows=full_real,best") == 2
    assert "the run has no row 'best'" in capsys.readouterr().err and len(read(tmp_path)) == 3
    before = read(tmp_path, "per_class.csv")
    assert collect(tmp_path, "--rows=full_real") == 0
    assert find(tmp_path, "distilled")["mean"] == "70" and len(read(tmp_path)) == 4
    assert find(tmp_path, "full_real")["mean"] == "90"
    by_class = read(tmp_path, "per_class.csv")
    assert [row for row in by_class if row["row"] != "full_real"] == before


def test_what_training_images_judged_belongs_to_a_study(tmp_path, capsys):
    """Breaks when an accuracy on training images reads as one on the test set."""
    config = make_config("cifar10_lt", "if100_ipc10")
    config["data"]["judge"] = "held_out"
    write_run(tmp_path / "run", make_report(config))
    assert collect(tmp_path, "--pixels=jpeg", "--unchecked") == 2
    assert "give --study=NAME" in capsys.readouterr().err
    assert collect(tmp_path, "--pixels=jpeg", "--unchecked", "--study=rates") == 0
    assert {(row["judge"], row["published"]) for row in read(tmp_path)} == {("held_out", "")}


def change(field, value):
    """A report whose config has another value."""
    report = make_report()
    section, _, name = field.partition(".")
    report["config"][section][name] = value
    return report


@pytest.mark.parametrize(
    ("report", "more", "words"),
    [
        ({"config_hash": "other"}, (), "is of another set than the one that is there now"),
        (change("net.width", 64), (), "--command gives net.width=32, but the run had 64"),
        (change("data.source", "cifar10"), ("--unchecked",), "--pixels=original or jpeg"),
        (
            make_report(distilled=make_result(70.0, per_seed=[70.0, 71.0])),
            (),
            "2 networks, fewer than 5: evaluate with --config.evaluation.num_seeds=5",
        ),
    ],
)
def test_what_is_no_number_is_refused_in_a_sentence(tmp_path, capsys, report, more, words):
    write_run(tmp_path / "run", make_report() | report)
    assert collect(tmp_path, *more) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "results.csv").exists()


def test_a_run_without_report_is_not_finished(tmp_path, capsys):
    (write_run(tmp_path / "run") / "report.json").unlink()
    assert collect(tmp_path) == 2
    assert "report.json is missing: the run is not finished" in capsys.readouterr().err


def test_a_note_explains_few_networks(tmp_path):
    report = make_report(distilled=make_result(70.0, per_seed=[70.0, 71.0]))
    write_run(tmp_path / "run", report)
    assert collect(tmp_path, "--note=two networks, as time was short") == 0
    assert find(tmp_path, "distilled")["note"] == "two networks, as time was short"


def test_a_contradiction_needs_a_word(tmp_path, capsys):
    """Breaks when a second measurement silently wins, or loses."""
    home = write_run(tmp_path / "run")
    assert collect(tmp_path) == 0
    report = make_report(distilled=make_result(71.0))
    (home / "report.json").write_text(json.dumps(report))
    assert collect(tmp_path) == 2
    said = capsys.readouterr().err
    assert "70.00 ± 0.25 of 5 networks, and now has 71.00" in said and "--replace" in said
    assert find(tmp_path, "distilled")["mean"] == "70"
    assert collect(tmp_path, "--replace") == 0
    assert find(tmp_path, "distilled")["mean"] == "71" and len(read(tmp_path)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace(",ipc,", ",images,", 1), "unknown column images"),
        (lambda text: text.replace("ipc,width", "width,ipc", 1), "in another order"),
        (lambda text: text.replace(",70,", ",seventy,", 1), "mean is 'seventy', not a number"),
        (lambda text: text.replace(",abc1234,distilled", ",,distilled", 1), "commit is empty"),
    ],
)
def test_a_damaged_file_is_not_added_to(tmp_path, capsys, change, words):
    write_run(tmp_path / "run")
    assert collect(tmp_path) == 0
    path = tmp_path / "results.csv"
    damaged = change(path.read_text())
    path.write_text(damaged)
    assert collect(tmp_path) == 2
    assert words in capsys.readouterr().err and path.read_text() == damaged


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [made_up.make_number(41.94, variant="a, b", rate=0.0001234, published=53.4)]
    path = tmp_path / "results.csv"
    path.write_text(measured.render(rows))
    assert measured.read(path) == rows
