"""Breaks when two runs share a directory that one of them writes."""

import pytest

from ltdd_jax.pipeline import experts
from ltdd_jax.runtime import lock
from ltdd_jax.types import UserError
from tests.pipeline import runs, small_run


def test_second_process_on_a_workdir_is_refused_and_the_first_goes_on(program, run, tmp_path):
    workdir = tmp_path / "run"
    with runs.ended(program.start(workdir)) as process:
        assert runs.wait_until((workdir / "config.json").exists, process)
        with pytest.raises(UserError, match=f"in use by process {process.pid} on .*--workdir"):
            run(workdir)
        assert process.poll() is None


def test_shared_trajectories_have_one_writer_and_many_readers(finished, run, tmp_path):
    with lock.Lock(tmp_path / "experts", ""), pytest.raises(UserError, match="has trained"):
        run(tmp_path / "run", "experts", experts__path=str(tmp_path / "experts"))
    with lock.Lock(finished / "experts", ""):
        run(tmp_path / "run", "experts", experts__path=str(finished / "experts"))


@pytest.mark.parametrize("first", ["owner", "guest"])
def test_experts_inside_a_workdir_have_one_writer(tmp_path, first):
    """Breaks when the lock of a workdir is to keep out a run that was given its experts."""
    place = tmp_path / "owner" / "experts"
    made = {
        "owner": small_run.make_run(tmp_path / "owner"),
        "guest": small_run.make_run(tmp_path / "guest", experts__path=str(place)),
    }
    holder, other = made.pop(first), *made.values()
    with (
        experts.sole_writer(holder.workspace),
        pytest.raises(UserError, match=r"owner/experts is in use by process .* has trained"),
    ):
        experts.run_experts(other, ("representation",))
    with experts.sole_writer(other.workspace):
        pass
    assert list(place.iterdir()) == []


def test_run_does_not_wait_for_itself(tmp_path):
    """Breaks when experts at the top of a workdir ask for the lock that the run holds."""
    workspace = small_run.make_run(tmp_path, experts__path=str(tmp_path)).workspace
    with workspace.hold(), experts.sole_writer(workspace):
        assert (tmp_path / lock.NAME).exists()
