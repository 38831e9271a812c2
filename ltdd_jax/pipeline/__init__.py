"""The three stages in order: the only place with a config, files and long loops."""

import contextlib
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
from ltdd_jax.experts.trajectory import DamagedSegmentError
from ltdd_jax.pipeline import plan
from ltdd_jax.pipeline.distill import Distiller
from ltdd_jax.pipeline.evaluate import run_evaluate
from ltdd_jax.pipeline.experts import repair, run_experts
from ltdd_jax.pipeline.problem import Problem, load_problem, load_sets, make_network
from ltdd_jax.pipeline.workspace import Workspace, versions
from ltdd_jax.runtime import files, interrupt, processes
from ltdd_jax.runtime.interrupt import StopRequest
from ltdd_jax.runtime.processes import connect, explain_lost_peer, leave
from ltdd_jax.types import SyntheticSet, UserError

__all__ = ["connect", "explain_lost_peer", "leave", "run"]


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
    with interrupt.watch_signals() as stop, _explain_memory():
        train, test = load_sets(config)
        make_network(config, train)  # a mistake found here leaves no trace
        with workspace.hold() if processes.is_first() else contextlib.nullcontext():
            if processes.is_first():  # before anything expensive or lasting happens
                workspace.claim(fingerprint(train, test))
            problem = processes.first_then_rest(
                lambda: load_problem(config, train, test, workspace.preprocessing, workspace.warn)
            )
            if processes.is_first():
                processes.say(plan.describe(config, problem, workspace))
            plan.check_memory(config, problem)
            _run_stages(config, problem, workspace, stage, stop)


def _run_stages(config, problem, workspace, stage, stop):
    seconds = {}
    if processes.is_first():
        seconds = workspace.read_or_set_aside(workspace.seconds) or {}
    if stage in ("experts", "all"):
        with _timed(workspace, seconds, "experts"):
            run_experts(config, problem, workspace, stop)
    if stage in ("distill", "all"):
        _stop_between_stages(stop)
        with _timed(workspace, seconds, "distill"):
            synthetic = _distill(config, problem, workspace, stage, stop)
            if processes.is_first():
                write_synthetic(synthetic, config, problem, workspace)
    if stage in ("evaluate", "all"):
        _stop_between_stages(stop)
        with _timed(workspace, seconds, "evaluate"):
            processes.meet("evaluate")
            synthetic = read_synthetic(config, problem, workspace)
            results = run_evaluate(config, problem, workspace, synthetic, stop)
        if processes.is_first():
            write_report(results, config, problem, workspace, seconds)


def _distill(config, problem, workspace, stage, stop):
    """Distils; trajectories found damaged on the way are trained again in a whole run."""
    while True:
        try:
            return Distiller(config, problem, workspace, stop).run()
        except DamagedSegmentError as error:
            repair(workspace, error)
            if stage != "all":
                raise UserError(
                    f"{error}; it was moved aside, run --stage=experts (or all) with the same "
                    "settings to train it again"
                ) from error
            run_experts(config, problem, workspace, stop)


def _stop_between_stages(stop: StopRequest):
    stop.agree()
    stop.raise_if_requested()


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
    files.write_bytes(workspace.synthetic / "synthetic.npz", buffer.getvalue())
    grid = picture.draw_grid(pixels, labels, problem.train.class_names)
    buffer = io.BytesIO()
    grid.save(buffer, format="PNG", optimize=True)
    files.write_bytes(workspace.synthetic / "grid.png", buffer.getvalue())
    processes.say(f"distilled set: {workspace.synthetic / 'synthetic.npz'}, grid.png beside it")


def read_synthetic(config: ConfigDict, problem: Problem, workspace: Workspace) -> SyntheticSet:
    """Reads synthetic.npz; UserError when it is missing, damaged or of another run."""
    path = workspace.synthetic / "synthetic.npz"
    if not path.exists():
        raise UserError(f"{path} is missing; run --stage=distill with the same --workdir")
    size = config.distill.ipc * problem.num_classes
    shapes = {
        "images": (size, *problem.image_shape),
        "label_logits": (size, problem.num_classes),
        "step_size": (),
    }
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            found = {name: archive[name] for name in shapes}
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib or NumPy
        raise UserError(
            f"{path} is damaged ({error!r}); delete it and run --stage=distill again"
        ) from error
    for name, array in found.items():
        if (array.dtype, array.shape) != (np.float32, shapes[name]) or not np.isfinite(array).all():
            raise UserError(
                f"{path} is not of this run: {name} is {array.dtype}{list(array.shape)}, not "
                f"finite float32{list(shapes[name])}; delete it and run --stage=distill again"
            )
    return SyntheticSet(**found)


def write_report(
    results: dict, config: ConfigDict, problem: Problem, workspace: Workspace, seconds: dict
) -> None:
    """Writes report.json and report.md, and prints the latter."""
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
    files.write_text(workspace.report, report.render_json(made))
    page = report.render_markdown(made)
    files.write_text(workspace.report_text, page)
    processes.say(page)


def _configure_jax(config):
    precision = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
    jax.config.update("jax_default_matmul_precision", precision[config.runtime.precision])
    cache = config.runtime.compilation_cache
    if cache != "off":
        home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        default = pathlib.Path(home).expanduser() / "ltdd_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", cache or str(default))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextlib.contextmanager
def _explain_memory():
    """Turns the compiler's or the device's lack of memory into a message."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        raise UserError(
            f"out of memory ({(text.strip() or 'MemoryError').splitlines()[0][:200]}); lower "
            "--config.runtime.expert_group_size, --config.distill.batch_size or "
            "--config.net.width"
        ) from error


@contextlib.contextmanager
def _timed(workspace, seconds, stage):
    """Adds the wall time of a block to the record of the stage, over several sittings."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - start
        if processes.is_first():
            with contextlib.suppress(UserError):  # a full disk: the stage itself says so
                files.write_sealed(workspace.seconds, seconds)
