"""Checkpoints of one loop: breaks when what a kill has left of them stays for good."""

import numpy as np
import pytest
from etils import epath

from ltdd_jax.pipeline import loop
from ltdd_jax.runtime import checkpoint


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def test_what_a_cut_deletion_left_is_deleted_with_the_rest(tmp_path, monkeypatch):
    """Breaks when half a deleted checkpoint keeps its directory."""

    def rmtree(path):
        raise Killed

    checkpoints = loop.Checkpoints(epath.Path(tmp_path / "states"), pytest.fail)
    with checkpoint.Writer() as writer:
        for step in (1, 2):
            checkpoints.save(writer, {"x": np.zeros(3)}, step, {})
    with monkeypatch.context() as killed, pytest.raises(Killed):
        killed.setattr(epath.gpath.PosixGPath, "rmtree", rmtree)
        checkpoints.delete()
    assert checkpoint.complete_steps(tmp_path / "states") == [2]
    checkpoints.delete()
    assert not (tmp_path / "states").exists()
