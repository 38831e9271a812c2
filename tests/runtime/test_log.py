"""Breaks when a resumed run's metrics differ from an uninterrupted one's, or a file is torn."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.runtime import files, log


def write_steps(metric_log, stage, steps):
    for step in steps:
        metric_log.write(stage, step, {"loss": 1 / (step + 1)})


def test_lines_are_json_with_python_numbers(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    metric_log = log.MetricLog(path)
    metric_log.write("distill", 3, {"loss": jnp.float32(0.5), "n": np.int64(2), "note": "é"})
    metric_log.write("distill", np.int32(4), {"loss": 1.0})
    assert [files.unseal(json.loads(line)) for line in path.read_text().splitlines()] == [
        {"stage": "distill", "step": 3, "loss": 0.5, "n": 2, "note": "é"},
        {"stage": "distill", "step": 4, "loss": 1.0},
    ]


def test_lines_of_a_stage_are_read_and_damaged_ones_passed_over(tmp_path):
    """Breaks when reading alters the file, takes another stage's lines or ends on a damaged one."""
    path = tmp_path / "metrics.jsonl"
    metric_log = log.MetricLog(path)
    assert metric_log.read("distill") == []
    write_steps(metric_log, "distill", [1, 2])
    write_steps(metric_log, "other", [3])
    text = path.read_text().replace("0.5", "0.7")
    path.write_text(text + '{"stage": "distill", "st')
    assert [(x["step"], x["loss"]) for x in metric_log.read("distill")] == [(2, 1 / 3)]
    assert path.read_text() == text + '{"stage": "distill", "st'


@pytest.mark.parametrize("value", [float("nan"), jnp.float32("inf"), np.float64("-inf")])
def test_nan_and_infinity_are_refused(tmp_path, value):
    metric_log = log.MetricLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"loss is .* at step 7 of distill"):
        metric_log.write("distill", 7, {"loss": value})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_resumed_file_equals_uninterrupted_file(tmp_path):
    whole, resumed = (log.MetricLog(tmp_path / f"{name}.jsonl") for name in ("whole", "resumed"))
    write_steps(whole, "experts", range(4))
    write_steps(whole, "distill", range(0, 60, 10))
    write_steps(resumed, "experts", range(4))
    write_steps(resumed, "distill", range(0, 50, 10))  # killed after the checkpoint of step 20
    resumed.truncate_after("distill", 20)
    write_steps(resumed, "distill", range(30, 60, 10))
    assert resumed.path.read_text() == whole.path.read_text()


def test_line_cut_off_by_a_kill_is_removed(tmp_path):
    metric_log = log.MetricLog(tmp_path / "metrics.jsonl")
    write_steps(metric_log, "distill", [0, 1])
    before = metric_log.path.read_text()
    metric_log.path.write_text(before + '{"stage": "dist')
    metric_log.truncate_after("distill", 1)
    assert metric_log.path.read_text() == before


def test_minus_one_starts_a_stage_over_and_leaves_the_others(tmp_path):
    metric_log = log.MetricLog(tmp_path / "metrics.jsonl")
    write_steps(metric_log, "experts", [0, 1])
    write_steps(metric_log, "distill", [0, 1])
    metric_log.truncate_after("distill", -1)
    stages = {json.loads(line)["stage"] for line in metric_log.path.read_text().splitlines()}
    assert stages == {"experts"}


def test_other_processes_write_nothing_but_still_refuse_nan(tmp_path):
    metric_log = log.MetricLog(tmp_path / "metrics.jsonl", enabled=False)
    metric_log.write("distill", 0, {"loss": 1.0})
    metric_log.truncate_after("distill", -1)
    with pytest.raises(ValueError, match="nan"):
        metric_log.write("distill", 0, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_altered_line_is_named_left_out_and_kept_aside(tmp_path, capsys):
    metric_log = log.MetricLog(tmp_path / "metrics.jsonl")
    write_steps(metric_log, "distill", range(4))
    lines = metric_log.path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("0.5", "0.6")
    lines[2] = "\n"
    metric_log.path.write_text("".join(lines))
    metric_log.truncate_after("distill", 3)
    assert "metrics.jsonl: line 2, 3 was damaged" in capsys.readouterr().out
    assert metric_log.path.read_text() == lines[0] + lines[3]
    assert (tmp_path / "metrics.jsonl.damaged-1").read_text() == "".join(lines)


def test_replace_keeps_the_place_and_repeats_nothing(tmp_path):
    metric_log = log.MetricLog(tmp_path / "metrics.jsonl")
    rows = [(step, {"loss": step / 2}) for step in range(3)]
    metric_log.replace("experts", rows)
    write_steps(metric_log, "distill", [0])
    before, modified = metric_log.path.read_text(), metric_log.path.stat().st_mtime_ns
    metric_log.replace("experts", rows)
    assert metric_log.path.stat().st_mtime_ns == modified
    metric_log.replace("experts", rows[:1])
    metric_log.replace("experts", rows)
    assert metric_log.path.read_text() == before


def test_where_nothing_can_be_appended_the_file_is_written_anew(tmp_path, monkeypatch):
    """As in an object store; there a file opened for appending raises."""
    local, remote = (log.MetricLog(tmp_path / name) for name in ("local", "remote"))
    write_steps(local, "distill", range(3))
    monkeypatch.setattr(log.files, "is_local", lambda path: False)
    monkeypatch.setattr(pathlib.Path, "open", None)
    write_steps(remote, "distill", range(3))
    monkeypatch.undo()
    assert remote.path.read_text() == local.path.read_text()


def test_json_is_sorted_replaced_whole_and_refuses_nan(tmp_path):
    path = tmp_path / "new" / "config.json"
    files.write_json(path, {"b": 1, "a": {"d": 2, "c": "é"}})
    assert path.read_text(encoding="utf-8") == (
        '{\n  "a": {\n    "c": "é",\n    "d": 2\n  },\n  "b": 1\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text())["b"] == 1
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left
