"""Command line: reads the flags, runs the pipeline, turns mistakes into one-line messages.

Short on purpose: what is worth testing by itself lives in `command_line` and `pipeline`.

    python -m ltdd_jax.main --config=configs/digits_lt.py [--workdir=DIR] [--config.distill.ipc=5]
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from absl import app, flags, logging
from ml_collections import config_flags

from ltdd_jax import command_line
from ltdd_jax.errors import Interrupted, UserError

_CONFIG = config_flags.DEFINE_config_file(
    name="config",
    help_string="FILE.py or FILE.py:VARIANT; --config.x.y=value overrides a field.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; empty is runs/<config name>.")
_STAGE = flags.DEFINE_enum(
    "stage", "all", ["experts", "distill", "evaluate", "all"], "Stage to run from what is there."
)
_SET = flags.DEFINE_string(
    "set", "", "Name of the distilled set, to keep several in one workdir with the same experts."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be done and what it costs.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join other processes; on a TPU VM or in SLURM nothing else is needed."
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses `argv` as absl does, but every mistake is one message and exit code 2."""
    if command_line.asks_for_help(argv):
        print(command_line.HELP)
        sys.exit(0)
    argv = command_line.find_packaged(argv)
    try:
        command_line.check_overrides(argv)
        arguments = flags.FLAGS(argv)
        if _CONFIG.value is None:
            raise UserError(command_line.MISSING_CONFIG)
        if len(arguments) > 1:
            raise UserError(f"unexpected argument {arguments[1]!r}: all settings start with --")
        _CONFIG.value.to_dict()  # a file that could not be read raises at the first access only
    except Exception as error:
        sys.exit(_report(command_line.explain(error, argv)))
    return arguments


def main(_: list[str]) -> int:
    """Runs the pipeline; returns 0, 2 for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM."""
    logging.set_verbosity(logging.WARNING)  # libraries tell every step of every save
    config = _CONFIG.value
    workdir = _WORKDIR.value or f"runs/{config.name}"
    try:
        with _end_quietly():
            command_line.check_data(config)
            # Imported late so that --help and mistakes in flags and data are answered at once.
            from ltdd_jax import pipeline
    except UserError as error:
        return _report(str(error))

    try:
        with pipeline.acknowledge_signals():
            _connect(pipeline)
            given = frozenset(command_line.list_overrides(sys.argv))
            pipeline.run(
                config, workdir, _STAGE.value, _SET.value, keep=given, dry_run=_DRY_RUN.value
            )
    except UserError as error:
        return pipeline.leave(_report(str(error)))
    except (Interrupted, KeyboardInterrupt) as stopped:
        name = str(stopped) if isinstance(stopped, Interrupted) else "SIGINT"
        print(
            f"stopped by {name}: {workdir} is usable, the same command continues from there",
            file=sys.stderr,
        )
        return pipeline.leave(getattr(stopped, "exit_code", 130))
    except Exception as error:
        message = pipeline.explain_lost_peer(error)
        if message is None:
            raise
        return pipeline.leave(_report(message))
    return 0


@contextlib.contextmanager
def _end_quietly() -> Iterator[None]:
    """Ctrl-C ends the process at once and without a traceback: nothing has begun."""

    def end(number, frame):
        del number, frame
        print("stopped by SIGINT: nothing has begun", file=sys.stderr, flush=True)
        os._exit(128 + signal.SIGINT)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _connect(pipeline) -> None:
    arguments = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if _DISTRIBUTED.value:
        pipeline.connect(*arguments)
    elif any(value is not None for value in arguments):
        raise UserError("--coordinator_address, --num_processes, --process_id need --distributed")


def _report(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def run() -> None:
    """The console command `ltdd`: the pipeline, or `ltdd export`."""
    if sys.argv[1:2] == ["export"]:
        with _end_quietly():
            from ltdd_jax.export import __main__ as export
        sys.exit(export.main(sys.argv[2:], program="ltdd export"))
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
