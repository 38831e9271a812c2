"""Breaks when two runs share a directory that one of them writes."""

import pytest

from ltdd_jax.runtime import lock
from ltdd_jax.types import UserError
from tests.pipeline import runs


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
