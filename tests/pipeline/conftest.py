"""Runs that several tests look at: each is made once."""

import os
import pathlib
import shutil
import time

import jax
import pytest

from ltdd_jax import pipeline
from tests.pipeline import runs, tiny_config


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> pathlib.Path:
    """A directory of this test session, the same for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def program(shared) -> runs.Program:
    """The command line."""
    return runs.Program(shared / "compiled")


@pytest.fixture(scope="session")
def finished(program, shared) -> pathlib.Path:
    """Workdir of an uninterrupted run; to be read only."""
    try:
        (shared / "finished").mkdir()
    except FileExistsError:  # another worker makes it
        while not (shared / "finished" / "done").exists():
            time.sleep(0.1)
    else:
        try:
            program.run(shared / "finished" / "run")
        finally:
            (shared / "finished" / "done").touch()
    return shared / "finished" / "run"


@pytest.fixture
def copy(finished, tmp_path):
    """Makes a copy of the finished run, without the results of some stages."""

    def make(*, without: tuple[str, ...] = (), name: str = "copy") -> pathlib.Path:
        workdir = tmp_path / name
        shutil.copytree(finished, workdir)
        for stage in without:
            for part in _RESULTS[stage]:
                shutil.rmtree(workdir / part, ignore_errors=True)
        if "distill" in without:
            lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
            kept = [line for line in lines if '"stage": "distill"' not in line]
            (workdir / "metrics.jsonl").write_text("".join(kept))
        if "experts" in without:
            (workdir / "metrics.jsonl").unlink()
        return workdir

    return make


_RESULTS = {
    "experts": ("experts", "accuracy"),
    "distill": ("distill", "synthetic"),
    "evaluate": ("evaluate", "baselines"),
}


@pytest.fixture
def tiny(program):
    """Makes the tiny config, with fields replaced; "__" stands for the dot."""

    def make(**fields):
        config = tiny_config.get_config()
        config.runtime.compilation_cache = str(program.cache)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        return config

    return make


@pytest.fixture
def settings():
    """Settings of JAX for runs in this process, equal to runs.ENVIRONMENT; undone afterwards."""
    before = {name: getattr(jax.config, name) for name in _TOUCHED}
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Draws are used in the forward and in the backward pass on purpose.
    jax.config.update("jax_debug_key_reuse", False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def run(settings, tiny):
    """Runs the pipeline in this process; stage, set and fields of the config are keywords."""

    def call(workdir, stage="all", set_name="", **fields):
        pipeline.run(tiny(**fields), str(workdir), stage, set_name)

    return call


_TOUCHED = (
    "jax_debug_key_reuse",
    "jax_compilation_cache_dir",
    "jax_default_matmul_precision",
    "jax_persistent_cache_min_compile_time_secs",
)
