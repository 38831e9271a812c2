"""Breaks when a run that was stopped and continued differs in one bit from one that was not."""

import itertools
import signal

import pytest

from ltdd_jax.runtime import interrupt
from ltdd_jax.types import Interrupted
from tests.pipeline import runs


@pytest.mark.slow
def test_run_stopped_every_few_steps_equals_an_uninterrupted_one(
    finished, run, tmp_path, monkeypatch
):
    """Experts in mid-group, distillation between log lines, evaluation in mid-training."""
    # Questions answered before the signal: stops at epoch 3 of 5, 2 of 3, iterations 2 and 5 of 7
    # (a log line is due at 3 and 6), and in every evaluation.
    patience = itertools.chain([3, 4, 4, 4], itertools.repeat(5))
    calls = 0

    def agree_max(received, *wishes):
        nonlocal calls
        calls += 1
        return (signal.SIGTERM if calls == limit else received, *wishes)

    monkeypatch.setattr(interrupt.processes, "agree_max", agree_max)
    sittings = 0
    while True:
        calls, limit, sittings = 0, next(patience), sittings + 1
        try:
            run(tmp_path / "run", runtime__checkpoint_epochs=1000, runtime__checkpoint_steps=1000,
                runtime__checkpoint_minutes=0.0)  # fmt: skip
            break
        except Interrupted as stopped:
            assert stopped.exit_code == 143
    assert sittings > 5
    runs.assert_same(tmp_path / "run", finished)


@pytest.mark.parametrize(
    ("sent", "code", "place"),
    [
        pytest.param(
            signal.SIGTERM, 143, "experts/representation-*/group_*/epochs_*", marks=pytest.mark.slow
        ),
        (signal.SIGINT, 130, "distill/step_*"),
        pytest.param(signal.SIGTERM, 143, "evaluate/*/step_*", marks=pytest.mark.slow),
    ],
)
def test_signal_saves_and_the_same_command_continues(program, finished, copy, sent, code, place):
    later = ("distill", "evaluate")
    workdir = copy(without=later if place.startswith("distill") else ("experts", *later))
    (workdir / "report.json").unlink()
    with runs.ended(program.start(workdir)) as process:
        assert runs.wait_until(lambda: any(workdir.glob(place)), process)
        process.send_signal(sent)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert f"stopped by {signal.Signals(sent).name}: {workdir} is usable" in output
    assert not (workdir / ".lock").exists()
    assert not (workdir / "report.json").exists()
    program.run(workdir)
    runs.assert_same(workdir, finished)
