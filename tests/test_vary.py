"""The script that varies settings: what it runs, what it reads, and that it resumes."""

import json
import shlex

import pytest

from tests.scripts import load_script

vary = load_script("vary")

PLAN = "  cost: experts 1.5 TFLOP (about 2.0 min), distill 3 GFLOP, evaluate 0.5 GFLOP; a short run"


class Runner:
    """Stands for the program: leaves a report, or ends with the exit code it is told."""

    def __init__(self, workdir, held_out=7, block="", **codes):
        self.workdir, self.held_out, self.block, self.codes = workdir, held_out, block, codes
        self.calls = []

    def __call__(self, name, arguments):
        self.calls.append((name, list(arguments)))
        code = self.codes.pop(name, 0)
        if code:
            return code, ""
        rows = {"distilled": {"mean": 40.0, "std": 1.5}, "initial": {"mean": 30.5, "std": 0.5}}
        rows = {f"{self.block}{name}": row for name, row in rows.items()}
        report = {"held_out": self.held_out, "results": rows, "seconds": {"distill": 61.0}}
        home = self.workdir / "sets" / name
        home.mkdir(parents=True)
        (home / "report.json").write_text(json.dumps(report))
        lines = [("experts", 9, 5.0), ("distill", 3, 0.9), ("distill", 6, 0.25)]
        text = "".join(
            json.dumps({"stage": stage, "step": step, "loss": loss, "step_size": 0.1}) + "\n"
            for stage, step, loss in lines
        )
        (home / "metrics.jsonl").write_text(text)
        return 0, f"something\n{PLAN}\nmore: cost 7 GFLOP\n"


def start(tmp_path, texts, runner, out="table.csv", common="--config.seed=3"):
    variations = vary.read_variations(texts, common)
    said = []
    base = ["--config=a.py", "--workdir=w"]
    found = vary.vary(variations, base, runner.workdir, tmp_path / out, runner, said.append)
    return found, "\n".join(said)


TEXTS = ("base", "slow:--config.a.b=1.0 --config.data.judge=test")


def test_runs_share_a_directory_and_are_judged_on_held_out_images(tmp_path):
    """Breaks when a variation is judged on the test set, loses a setting or another's place."""
    runner = Runner(tmp_path / "run")
    start(tmp_path, TEXTS, runner)
    same = ["--config=a.py", "--workdir=w"]
    assert runner.calls == [
        ("base", [*same, "--set=base", "--config.seed=3", vary.JUDGED]),
        ("slow", [*same, "--set=slow", "--config.seed=3", "--config.a.b=1.0",
                  "--config.data.judge=test", vary.JUDGED]),
    ]  # fmt: skip
    assert vary.JUDGED == "--config.data.judge=held_out"


@pytest.mark.parametrize("out", ["table.csv", "table.json"])
def test_table_has_what_the_runs_left(tmp_path, out):
    _, said = start(tmp_path, TEXTS, Runner(tmp_path / "run"), out)
    found = vary.read_table(tmp_path / out)
    assert list(found) == ["base", "slow"]
    record = {name: found["base"][name] for name in found["base"] if name != "settings"}
    numbers = {name: float(value) for name, value in record.items() if name != "name"}
    assert numbers == {
        "held_out": 7, "distilled_mean": 40.0, "distilled_std": 1.5, "initial_mean": 30.5,
        "initial_std": 0.5, "loss": 0.25, "distill_seconds": 61.0, "flops_experts": 1.5e12,
        "flops_distill": 3e9, "flops_evaluate": 0.5e9,
    }  # fmt: skip
    assert shlex.split(found["slow"]["settings"])[3] == "--config.a.b=1.0"
    assert "== 2 of 2: slow, about 0:00:00 left" in said
    assert "base: distilled 40.0 ± 1.5, initial 30.5 ± 0.5; distilled in 0:01:01" in said


def test_block_ii_alone_has_columns_of_its_own(tmp_path):
    """Breaks when variations of students are run and their accuracies lost."""
    found, said = start(tmp_path, ("base",), Runner(tmp_path / "run", block="ii_"))
    assert found["base"]["ii_distilled_mean"] == 40.0 and "distilled_mean" not in found["base"]
    assert "base: ii_distilled 40.0 ± 1.5, ii_initial 30.5 ± 0.5; distilled" in said


@pytest.mark.parametrize("out", ["table.csv", "table.json"])
def test_finished_variations_are_not_run_again(tmp_path, out):
    """Breaks when a stop loses what is finished, or a failure is taken for a result."""
    runner = Runner(tmp_path / "run", one=2, two=130)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, ("base", "one", "two", "three"), runner, out)
    assert [name for name, _ in runner.calls] == ["base", "one", "two"]
    before = vary.read_table(tmp_path / out)
    assert list(before) == ["base", "one"] and before["one"]["error"] == "exit code 2"
    runner.calls.clear()
    found, said = start(tmp_path, ("base", "one", "two", "three"), runner, out)
    assert [name for name, _ in runner.calls] == ["one", "two", "three"]
    assert "3 of 4 variations" in said
    after = vary.read_table(tmp_path / out)
    assert set(found) == set(after) and not any(line.get("error") for line in after.values())
    assert after["base"]["distilled_mean"] == before["base"]["distilled_mean"]


def test_wrong_variations_are_refused(tmp_path):
    for texts in (("a b",), ("a", "a"), ("a:--workdir=x",), ("a:8",)):
        with pytest.raises(ValueError, match=r"name of its own|is no --config"):
            vary.read_variations(texts, "")
    start(tmp_path, ("base",), Runner(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"base is in .* with other settings"):
        start(tmp_path, ("base:--config.x.y=1",), Runner(tmp_path / "run"))
    with pytest.raises(ValueError, match="judged on the test set"):
        start(tmp_path, ("other",), Runner(tmp_path / "run", held_out=0), "other.csv")
