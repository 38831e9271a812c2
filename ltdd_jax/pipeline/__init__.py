"""The three stages in order: the only place with a config, files and long loops."""

import contextlib
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from ltdd_jax import config as configs
from ltdd_jax.data.sources import ImageSet, fingerprint
from ltdd_jax.distill import Method
from ltdd_jax.experts.trajectory import DamagedSegmentError
from ltdd_jax.pipeline import claims, labels, live, plan, transfer
from ltdd_jax.pipeline.cost import Cost, estimate_cost, measure_speed
from ltdd_jax.pipeline.distill import identify, make_method, run_distill
from ltdd_jax.pipeline.evaluate import run_evaluate
from ltdd_jax.pipeline.experts import Snapshots, repair, run_experts
from ltdd_jax.pipeline.look import (
    look_at_experts,
    look_at_teachers,
    recall_experts,
    recall_teachers,
)
from ltdd_jax.pipeline.problem import load_problem, load_sets, make_network, sort_sets
from ltdd_jax.pipeline.report import write_report
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.settle import choose_size, settle_config
from ltdd_jax.pipeline.teachers import needed_teachers, run_teachers
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import files, interrupt, processes
from ltdd_jax.runtime.interrupt import acknowledge_signals
from ltdd_jax.runtime.processes import connect, explain_lost_peer, leave
from ltdd_jax.types import UserError

__all__ = [
    "Cost",
    "Snapshots",
    "acknowledge_signals",
    "connect",
    "estimate_cost",
    "explain_lost_peer",
    "fingerprint",
    "leave",
    "load_sets",
    "make_method",
    "measure_speed",
    "open_run",
    "run",
]

STAGES = ("experts", "distill", "evaluate")


Sets = tuple[ImageSet, ImageSet]


def run(
    config: ConfigDict,
    workdir: str,
    stage: str = "all",
    set_name: str = "",
    *,
    sets: Sets | None = None,
    keep: frozenset[str] = frozenset(),
    dry_run: bool = False,
) -> None:
    """Runs one stage, or all, from what is in the working directory.

    Args:
      config: from a file in `configs/`.
      workdir: where everything goes; local or remote.
      stage: one of `STAGES` or "all".
      set_name: of the distilled set, for several in one directory; "" is the one at its root.
      sets: training and test images that are in memory already, for the source "arrays".
      keep: dotted fields that a budget leaves as they are.
      dry_run: only says what would be done and what it costs; writes nothing.

    Raises:
      UserError: an impossible setting, missing data, a directory of something else, a full disk,
        or numbers that went wrong; the message says which and what to do.
      Interrupted: stopped by a signal, with everything saved.
    """
    with interrupt.watch_signals() as stop, _explain_memory():
        config, (train, test) = _prepare(config, sets, keep, stop, workdir)
        workspace = Workspace(config, workdir, set_name)
        network = make_network(config, train)  # a mistake found here leaves no trace
        transfer.check_networks(config, train)
        lasting = processes.is_first() and not dry_run
        with workspace.hold() if lasting else contextlib.nullcontext():
            if lasting:  # before anything expensive happens
                claims.claim(workspace, fingerprint(train, test))
            first = plan.describe_data(config, train, test, network, str(workspace.root))
            processes.say(first)
            cache = None if dry_run else workspace.preprocessing
            problem = processes.first_then_rest(
                lambda: load_problem(
                    config, train, test, cache, workspace.warn, stop.raise_if_received
                )
            )
            this = Run(config, problem, workspace, stop)
            made_by = make_method(this)
            method = labels.add_needs(this, made_by)
            stages = STAGES if stage == "all" else (stage,)
            plan.check_memory(this, method, stages)
            plan.check_disk(this, method, stages)
            if "distill" in stages and not dry_run:
                processes.first_then_rest(
                    lambda: claims.claim_set(workspace, identify(this, made_by))
                )
            rest = plan.describe(this, method)
            processes.say(rest)
            if not dry_run:
                _run_stages(this, method, stage, f"{first}\n{rest}")


def open_run(
    config: ConfigDict,
    workdir: str,
    set_name: str = "",
    *,
    sets: Sets | None = None,
    keep: frozenset[str] = frozenset(),
) -> Run:
    """The record of a run that is there, to read from; arguments as in `run`.

    Raises:
      UserError: as `run`.
    """
    stop = interrupt.StopRequest()
    config, (train, test) = _prepare(config, sets, keep, stop, workdir)
    workspace = Workspace(config, workdir, set_name)
    problem = load_problem(config, train, test, workspace.preprocessing, workspace.warn)
    return Run(config, problem, workspace, stop)


def _prepare(config, sets, keep, stop, workdir):
    """The config as the data settle it, and the images."""
    configs.validate(config, settled=False)
    _configure_jax(config)
    if sets is None:
        config = choose_size(config, keep)
        train, test = load_sets(config, stop.raise_if_received)
    else:
        train, test = sort_sets(config, *sets)
    machine = claims.read_machine(workdir) if config.budget else None
    config = settle_config(config, train, keep, machine)
    configs.validate(config)
    return config, (train, test)


def _run_stages(run: Run, method: Method, stage: str, described: str) -> None:
    seconds = run.workspace.read_or_set_aside(run.workspace.seconds) or {}
    asked = needed_teachers(method)
    if stage in ("experts", "all"):
        with _timed(run, seconds, "experts"):
            _mend(run, method, stage, lambda: _train_experts(run, method))
            run_teachers(run, asked)
            look_at_teachers(run, asked)
    if stage in ("distill", "all"):
        _stop_between_stages(run)
        with _timed(run, seconds, "distill"):
            _mend(run, method, stage, lambda: _distill(run, method))
    if stage in ("evaluate", "all"):
        _stop_between_stages(run)
        with _timed(run, seconds, "evaluate"):
            processes.meet("evaluate")
            labels.choose_present(run)
            results, confusion = _mend(run, method, stage, lambda: run_evaluate(run))
        live.show_results(run, results, method.num_iterations)
        looks = recall_experts(run, method.experts), recall_teachers(run, asked)
        write_report(run, method, results, confusion, *looks, seconds, described)


def _train_experts(run, method):
    run_experts(run, method.experts)
    look_at_experts(run, method.experts)


def _distill(run, method):
    run_distill(run, method)
    labels.run_relabel(run)


def _mend(run, method, stage, work):
    """What `work` returns; trajectories that it finds damaged are trained again, if any are."""
    while True:
        try:
            return work()
        except DamagedSegmentError as error:
            repair(run, error)
            if stage not in ("experts", "all"):
                raise UserError(
                    f"{error}; it was moved aside, run --stage=experts (or all) with the same "
                    "settings to train it again"
                ) from error
            run_experts(run, method.experts)


def _stop_between_stages(run):
    run.stop.agree()
    run.stop.raise_if_requested()


def _configure_jax(config):
    precision = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
    jax.config.update("jax_default_matmul_precision", precision[config.runtime.precision])
    cache = _find_compilation_cache(config.runtime.compilation_cache)
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _find_compilation_cache(wanted: str) -> str:
    """Directory of compiled programs, made if absent; "" keeps none."""
    if wanted == "off" or not files.is_local(wanted):
        return "" if wanted == "off" else wanted
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = pathlib.Path(wanted or f"{home}/ltdd_jax/xla").expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            return str(path)
    except OSError as error:
        if wanted:
            raise UserError(
                f"--config.runtime.compilation_cache={wanted} cannot be written "
                f"({error.strerror}); give another directory, or off to keep no compiled programs"
            ) from error
        processes.say(f"warning: {path} cannot be written; compiled programs are not kept")
        return ""


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
            "--config.runtime.expert_group_size, --config.trajectory.batch_size or "
            "--config.net.width"
        ) from error


@contextlib.contextmanager
def _timed(run: Run, seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the wall time of a block to the record of the stage, over several sittings."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - start
        with contextlib.suppress(UserError):  # a full disk: the stage itself says so
            files.write_sealed(run.workspace.seconds, seconds)
