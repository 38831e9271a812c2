"""SIGKILL at any instant: breaks when what is left misleads the next run or costs one bit.

They are slow tests; at least ten instants in every stage:

    python -m pytest tests/pipeline/test_kill.py -m slow
"""

import random
import shutil
import time

import pytest

from tests.pipeline import runs

WITHOUT = {
    "experts": ("experts", "distill", "evaluate"),
    "distill": ("distill", "evaluate"),
    "evaluate": ("evaluate",),
}


def kill_when(program, workdir, stage, condition) -> bool:
    """Starts a stage and kills it at the condition; False if it ended before."""
    with runs.ended(program.start(workdir, f"--stage={stage}")) as process:
        reached = runs.wait_until(condition, process)
    return reached


@pytest.mark.slow
def test_killed_in_a_save_of_every_stage(program, finished, tmp_path):
    """One run, killed while it writes a checkpoint of each stage."""
    workdir = tmp_path / "run"
    for part in ("experts", "distill", "evaluate"):
        killed = kill_when(program, workdir, "all", lambda p=part: runs.is_saving(workdir / p))
        assert killed, part
        assert not (workdir / "report.json").exists()
    program.run(workdir)
    runs.assert_same(workdir, finished)
    assert not list(workdir.glob("**/*orbax-checkpoint-tmp*"))
    assert not list(workdir.glob("**/*damaged*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", runs.STAGES)
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_instants(program, finished, copy, stage, seed):
    """Four kills of one run of a stage, three of them at random and one in a save; three runs."""
    generator = random.Random(seed)
    start = time.monotonic()
    program.run(copy(without=WITHOUT[stage], name="timing"), f"--stage={stage}")
    duration = time.monotonic() - start
    workdir, kills = copy(without=WITHOUT[stage], name="run"), 0
    while kills < 3:
        # The first seconds import; what follows is shorter in every run, as part of it is done.
        instant = time.monotonic() + generator.uniform(0.3, 1.0) * duration
        if kill_when(program, workdir, stage, lambda t=instant: time.monotonic() > t):
            kills += 1
        else:  # it was faster than the one that was timed
            shutil.rmtree(workdir)
            workdir, kills, duration = copy(without=WITHOUT[stage], name="run"), 0, 0.9 * duration
    kill_when(program, workdir, stage, lambda: runs.is_saving(workdir))
    program.run(workdir)
    runs.assert_same(workdir, finished)


@pytest.mark.slow
@pytest.mark.parametrize("stage", runs.STAGES)
def test_killed_after_every_change_of_the_directory(program, finished, copy, stage):
    """Kills at the n-th new name below the workdir, n = 1, 2, ...: before, in and after saves."""
    for count in range(1, 11):
        workdir = copy(without=WITHOUT[stage], name=f"run_{count}")
        seen: set = set()

        def changed(workdir=workdir, seen=seen, count=count):
            seen |= runs.names(workdir)
            return len(seen) > changed.start + 3 * count

        changed.start = len(runs.names(workdir))
        assert kill_when(program, workdir, stage, changed), count
        program.run(workdir)
        runs.assert_same(workdir, finished)
