"""The three stages in order: the only place with a config, files and long loops."""

import io
import os
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import config as configs
from ltdd_jax.data import normalize
from ltdd_jax.data.sources import fingerprint
from ltdd_jax.evaluate import picture, report
from ltdd_jax.pipeline import plan
from ltdd_jax.pipeline.distill import Distiller
from ltdd_jax.pipeline.evaluate import run_evaluate
from ltdd_jax.pipeline.experts import run_experts
from ltdd_jax.pipeline.problem import Problem, load_problem, load_sets
from ltdd_jax.pipeline.workspace import Workspace, versions
from ltdd_jax.runtime import interrupt, log
from ltdd_jax.types import SyntheticSet, UserError

__all__ = ["run"]


def run(config: ConfigDict, workdir: str, stage: str = "all") -> None:
    """Runs one stage, or all, from what is in the working directory.

    Args:
      config: from a file in `configs/`.
      workdir: where everything goes; local or remote.
      stage: "experts", "distill", "evaluate" or "all".

    Raises:
      UserError: an impossible setting, missing data, another run's directory, a full disk, or
        numbers that went wrong; the message says which and what to do.
      Interrupted: stopped by a signal, with everything saved.
    """
    configs.validate(config)
    _configure_jax(config)
    workspace = Workspace(config, workdir)
    with interrupt.watch_signals() as stop:
        problem = _open(config, workspace)
        print(plan.describe(config, problem, workspace), flush=True)
        seconds = workspace.read_json(workspace.root / "seconds.json") or {}
        if stage in ("experts", "all"):
            with _timed(workspace, seconds, "experts"):
                run_experts(config, problem, workspace, stop)
        if stage in ("distill", "all"):
            with _timed(workspace, seconds, "distill"):
                synthetic = Distiller(config, problem, workspace, stop).run()
                write_synthetic(synthetic, config, problem, workspace)
        if stage in ("evaluate", "all"):
            with _timed(workspace, seconds, "evaluate"):
                synthetic = read_synthetic(workspace)
                results = run_evaluate(config, problem, workspace, synthetic, stop)
            write_report(results, config, problem, workspace, seconds)
            print(workspace.report_text.read_text())


def write_synthetic(
    synthetic: SyntheticSet, config: ConfigDict, problem: Problem, workspace: Workspace
) -> None:
    """Writes synthetic.npz and grid.png."""
    labels = np.repeat(np.arange(problem.num_classes, dtype=np.int32), config.distill.ipc)
    pixels = normalize.invert(problem.preprocessing, np.asarray(synthetic.images))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=np.asarray(synthetic.images, np.float32),
        pixels=pixels,
        label_logits=np.asarray(synthetic.label_logits, np.float32),
        labels=labels,
        step_size=np.asarray(synthetic.step_size, np.float32),
        class_names=np.asarray(problem.train.class_names),
    )
    log.write_bytes(workspace.synthetic / "synthetic.npz", buffer.getvalue())
    grid = picture.draw_grid(pixels, labels, problem.train.class_names)
    picture.save(grid, workspace.synthetic / "grid.png")
    print(f"distilled set: {workspace.synthetic / 'synthetic.npz'}, picture: grid.png beside it")


def read_synthetic(workspace: Workspace) -> SyntheticSet:
    """Reads synthetic.npz; UserError when it is missing or damaged."""
    path = workspace.synthetic / "synthetic.npz"
    if not path.exists():
        raise UserError(f"{path} is missing; run --stage=distill with the same --workdir")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return SyntheticSet(**{k: archive[k] for k in ("images", "label_logits", "step_size")})
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib or NumPy
        raise UserError(
            f"{path} is damaged ({error!r}); delete it and run --stage=distill again"
        ) from error


def write_report(
    results: dict, config: ConfigDict, problem: Problem, workspace: Workspace, seconds: dict
) -> None:
    """Writes report.json and report.md."""
    made = report.make_report(
        results,
        config=config.to_dict(),
        config_hash=configs.config_hash(config),
        data_fingerprint=problem.fingerprint,
        class_names=problem.train.class_names,
        train_counts=problem.class_counts,
        versions=versions(),
        seconds=seconds,
    )
    log.write_text(workspace.report, report.render_json(made))
    log.write_text(workspace.report_text, report.render_markdown(made))


def _open(config, workspace):
    """Checks that the directory is this run's before anything expensive or lasting happens."""
    train, test = load_sets(config)
    workspace.claim(fingerprint(train, test))
    return load_problem(config, train, test, workspace.preprocessing)


def _configure_jax(config):
    precision = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
    jax.config.update("jax_default_matmul_precision", precision[config.runtime.precision])
    cache = config.runtime.compilation_cache
    if cache != "off":
        home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        default = pathlib.Path(home).expanduser() / "ltdd_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", cache or str(default))


class _timed:
    """Adds the wall time of a block to the record of the stage, over several sittings."""

    def __init__(self, workspace, seconds, stage):
        self._path, self._seconds, self._stage = workspace.root / "seconds.json", seconds, stage

    def __enter__(self):
        self._start = time.monotonic()

    def __exit__(self, *exception):
        spent = time.monotonic() - self._start
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + spent
        log.write_json(self._path, self._seconds)
