"""Several processes on one task: who writes, and how they agree.

All processes run the same program on the same working directory. Only the first prints and writes
files; whatever decides when all of them meet (a save, a stop) is agreed on before.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ltdd_jax.types import UserError

HEARTBEAT_SECONDS = 30  # a process that is silent for so long is taken for dead, and ends the rest
_CONNECT_SECONDS = 300


def connect(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes; must come before any computation.

    Args:
      coordinator_address: HOST:PORT of process 0. Without it, all three are found out from the
        environment, on a TPU VM, in a SLURM job and under Open MPI.
      num_processes: how many there are.
      process_id: this one's number, from 0.

    Raises:
      UserError: incomplete arguments, nothing to find them out from, or nobody answers.
    """
    given = [coordinator_address, num_processes, process_id]
    if any(x is not None for x in given) and any(x is None for x in given):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id belong together: give all "
            "three, or none of them on a TPU VM or in a SLURM job"
        )
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id} must be from 0 to --num_processes - 1 = {num_processes - 1}"
        )
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=_CONNECT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed cannot connect the processes ({str(error).strip().splitlines()[0]}); "
            "outside of a TPU VM and SLURM give --coordinator_address=HOST:PORT of process 0, "
            "--num_processes and --process_id, and start all processes"
        ) from error


def is_first() -> bool:
    """Whether this process prints and writes files."""
    return jax.process_index() == 0


def say(*words: Any) -> None:
    """Prints, on the first process only."""
    if is_first():
        print(*words, flush=True)


def warn(message: str) -> None:
    """Tells of something that the user should know and that is dealt with."""
    say(f"warning: {message}")


def agree_max(*numbers: int) -> tuple[int, ...]:
    """The largest value any process gives, for each position; all processes must call it."""
    if jax.process_count() == 1:
        return numbers
    everywhere = multihost_utils.process_allgather(np.asarray(numbers, np.int32))
    return tuple(int(x) for x in everywhere.reshape(-1, len(numbers)).max(axis=0))


def choose_on_first(choose: Callable[[], int]) -> int:
    """What `choose` returns on the first process; it is not called on the others."""
    if jax.process_count() == 1:
        return choose()
    chosen = choose() if is_first() else 0
    return int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))


def first_then_rest(function: Callable[[], Any]) -> Any:
    """Calls `function` on the first process and, once it is done, on the others.

    For work that finds a file the first time and makes it, or moves a damaged one aside.
    """
    if is_first():
        result = function()
    meet("first")
    if not is_first():
        result = function()
    meet("rest")
    return result


def meet(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def explain_lost_peer(error: BaseException) -> str | None:
    """A message if `error` is what a process gets when another one has ended; else None."""
    text = str(error).lower()
    signs = ("gloo", "nccl", "coordination service", "connection closed", "connection reset")
    if jax.process_count() == 1 or not any(sign in text for sign in signs):
        return None
    return (
        f"another process of this run has ended, so process {jax.process_index()} ends too "
        f"({str(error).strip().splitlines()[0][:200]}); look at its output for the reason, then "
        "start all processes again with the same command: they continue from the last save"
    )


def leave(exit_code: int) -> int:
    """Returns the exit code; with several processes a failed one leaves at once.

    The orderly way out waits for all processes, and the others may never come.
    """
    if exit_code and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code
