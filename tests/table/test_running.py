"""Breaks when a finished cell runs again, or one that fails takes others with it."""

import json

import pytest
from etils import epath

from ltdd_jax.errors import Interrupted, UserError
from ltdd_jax.table import running
from tests.table import made_up

METHODS = ("dam_ed", "mtt", "datm")


@pytest.fixture
def book(tmp_path):
    return running.Book(epath.Path(tmp_path / "table"))


def costs(**own):
    return {name: made_up.make_cost(flops, "experts") for name, flops in own.items()}


def run(jobs, book, runner, found=None, chosen=METHODS):
    said = []
    found = costs(dam_ed=3e12, mtt=1e12, datm=2e12) if found is None else found
    failed = running.run_cells(jobs, chosen, found, book, "A table", runner, said.append)
    return failed, said


def test_all_cells_run_cheap_ones_first_and_the_table_is_written(book):
    jobs, runner = made_up.make_all(*METHODS), made_up.Runner(book)
    failed, said = run(jobs, book, runner)
    assert failed == {} and runner.ran == ["mtt", "datm", "dam_ed"]
    assert [line.split(",")[0] for line in said] == [
        "== cell 1 of 3: mtt", "== cell 2 of 3: datm", "== cell 3 of 3: dam_ed",
    ]  # fmt: skip
    assert "left" not in said[0] and said[1].endswith("left for all")
    assert {path.name for path in book.root.iterdir()} >= set(running.FILES)
    assert "DAM + ED" in (book.root / "table.md").read_text()


def test_the_table_grows_with_every_cell(book):
    """Breaks when results wait for the last cell."""
    jobs, seen = made_up.make_all(*METHODS), []
    plain = made_up.Runner(book)

    def look(job, workdir):
        seen.append((book.root / "table.csv").read_text().count(",distilled,"))
        plain(job, workdir)

    run(jobs, book, look)
    assert seen == [0, 1, 2]


def test_a_stopped_table_goes_on_where_it_was(book):
    jobs = made_up.make_all(*METHODS)
    with pytest.raises(Interrupted):
        run(jobs, book, made_up.Runner(book, datm=Interrupted(2)))
    again = made_up.Runner(book)
    failed, said = run(jobs, book, again)
    assert failed == {} and again.ran == ["datm", "dam_ed"]
    assert said[0] == "1 of 3 cells are finished already"
    third = made_up.Runner(book)
    assert run(jobs, book, third) == ({}, ["3 of 3 cells are finished already"]) and not third.ran


@pytest.mark.parametrize("lost", ["record", "report", "damaged"])
def test_a_cell_killed_between_its_report_and_its_record_is_looked_at_again(book, lost):
    """The run itself finds everything done; the table must not take half a cell for a whole one."""
    jobs = made_up.make_all(*METHODS)
    run(jobs, book, made_up.Runner(book))
    record = book.root / "cells" / "mtt.json"
    if lost == "record":
        record.unlink()
    elif lost == "report":
        book.find_report(jobs[1]).unlink()
    else:
        record.write_text(record.read_text().replace("identity", "identify"))
    ran = []
    run(jobs, book, lambda job, workdir: ran.append(job.name))
    assert ran == ["mtt"]


def test_other_settings_run_again(book):
    run(made_up.make_all(*METHODS), book, made_up.Runner(book))
    changed = made_up.make_all(*METHODS, overrides={"evaluation.num_seeds": 3})
    ran = []
    run(changed, book, lambda job, workdir: ran.append(job.name))
    assert ran == ["mtt", "datm", "dam_ed"]


def test_one_failing_cell_leaves_the_others_alone(book):
    jobs = made_up.make_all(*METHODS)
    runner = made_up.Runner(book, mtt=UserError("the disk\nis full"), datm=ValueError("a | b\nc"))
    failed, said = run(jobs, book, runner)
    assert runner.ran == ["mtt", "datm", "dam_ed"]
    assert failed["mtt"] == "the disk is full"
    assert failed["datm"].startswith("an error of the program, ValueError: a | b (traceback in ")
    trace = (book.root / "cells" / "datm.traceback.txt").read_text()
    assert "Traceback" in trace and "ValueError" in trace
    assert "cell mtt failed: the disk is full" in said
    end = running.describe_end(jobs, book, failed).splitlines()
    assert end[0] == "1 of 3 cells is finished, 2 failed."
    assert end[1:3] == [f"  {name} failed: {failed[name]}" for name in ("mtt", "datm")]
    assert "failed: the disk is full" in (book.root / "table.html").read_text()
    again = made_up.Runner(book)
    assert run(jobs, book, again)[0] == {} and again.ran == ["mtt", "datm"]


def test_a_run_without_a_report_has_failed(book):
    failed, _ = run(made_up.make_all("mtt"), book, lambda job, workdir: None, chosen=("mtt",))
    assert "left no" in failed["mtt"]


def test_cells_whose_cost_is_unknown_come_last(book):
    runner = made_up.Runner(book)
    run(made_up.make_all(*METHODS), book, runner, costs(dam_ed=3e12, datm=2e12))
    assert runner.ran == ["datm", "dam_ed", "mtt"]


def test_only_the_chosen_cells_run_and_the_table_has_the_others_too(book):
    jobs = made_up.make_all(*METHODS)
    run(jobs, book, made_up.Runner(book), chosen=("mtt",))
    runner = made_up.Runner(book)
    run(jobs, book, runner, chosen=("datm",))
    assert runner.ran == ["datm"]
    text = (book.root / "table.md").read_text()
    assert "| MTT |" in text and "| DATM |" in text and "DAM + ED" not in text


def test_what_finished_cells_have_made_costs_nothing_after_a_stop(book):
    jobs = made_up.make_all(*METHODS)
    run(jobs, book, made_up.Runner(book), chosen=("mtt",))
    works = running.plan_cells(jobs, METHODS, costs(dam_ed=3e12, datm=2e12), book)
    assert [round(work / 1e12, 1) for work in works.values()] == [2.1, 3.1]


def test_the_plan_says_what_would_run_and_writes_nothing(book):
    jobs = made_up.make_all(*METHODS)
    found = {
        "mtt": made_up.make_cost(1e12, "experts-1", there=("experts-1",)),
        "datm": made_up.make_cost(2e12, "experts-2"),
    }
    text = running.describe_plan(jobs, METHODS, found, {"dam_ed": "no data"}, book, 1e11)
    place = jobs[0].directory
    assert text.splitlines() == [
        f"3 cells -> {book.root}",
        f"  mtt: waiting, 1.1 TFLOP, about 11 s, experts-1 there -> {place}",
        f"  datm: waiting, 3.1 TFLOP, about 31 s -> {place}",
        "  dam_ed: cannot run: no data",
        "  in all 4.3 TFLOP, about 43 s",
    ]
    assert not book.root.exists()


def test_times_are_shown_in_the_unit_that_fits():
    shown = [running.show_time(x) for x in (40.4, 89, 90, 3600, 5400, 10**5)]
    assert shown == ["40 s", "89 s", "2 min", "60 min", "1.5 h", "27.8 h"]


def test_a_report_says_nothing_of_cells_with_other_settings(book):
    """Breaks when numbers of other settings stand in the table."""
    run(made_up.make_all(*METHODS), book, made_up.Runner(book))
    changed = made_up.make_all(*METHODS, overrides={"net.width": 64})
    running.write_table(changed, book, "A table")
    assert "| MTT |" not in (book.root / "table.md").read_text()
    assert json.loads(book.find_report(changed[0]).read_text())  # it is there all the same


def test_two_programs_write_the_table_at_one_moment(book, monkeypatch):
    """Breaks when one takes the half-written file of the other away, which then stops."""
    jobs, sync = made_up.make_all(*METHODS), running.files.os.fsync

    def write_meanwhile(descriptor):
        with monkeypatch.context() as patch:
            patch.setattr(running.files.os, "fsync", sync)
            running.write_table(jobs, book, "Theirs")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(running.files.os, "fsync", write_meanwhile)
        running.write_table(jobs, book, "Ours")
    assert "Ours" in (book.root / "table.html").read_text()
    assert {path.name for path in book.root.iterdir()} == set(running.FILES)
