"""The one loop of all stages: advance, save when it is due, stop where everything is saved."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ltdd_jax.runtime import checkpoint, processes
from ltdd_jax.runtime.interrupt import StopRequest

_KEEP = 2  # checkpoints, so that one is left if the newest is damaged


class Cadence:
    """When the next checkpoint is due: after so many steps or minutes, whichever comes first.

    Args:
      runtime: section of the config.
      steps: steps between two checkpoints; None leaves the minutes alone.
      done: steps done at the start.
    """

    def __init__(self, runtime: ConfigDict, steps: int | None, done: int = 0):
        self._minutes, self._steps = runtime.checkpoint_minutes, steps
        self.reset(done)

    def reset(self, done: int) -> None:
        """Counts from now on."""
        self.saved, self._since = done, time.monotonic()

    def is_due(self, done: int) -> bool:
        """Whether to save after `done` steps."""
        minutes = (time.monotonic() - self._since) / 60
        enough = self._steps is not None and done - self.saved >= self._steps
        return enough or 0 < self._minutes <= minutes


def run_loop(
    stop: StopRequest,
    writer: checkpoint.Writer,
    cadence: Cadence,
    *,
    done: int,
    total: int,
    advance: Callable[[int], int],
    save: Callable[[int], None],
    save_last: bool,
) -> None:
    """Advances from `done` to `total`; several processes make the same calls in the same order.

    Args:
      stop: asked after every call of `advance`.
      writer: waited for before the loop is left early.
      cadence: when to save.
      done: steps done before.
      total: steps in all.
      advance: (steps done) -> steps added, at least 1.
      save: (steps done) -> None; called when due and when stopped.
      save_last: whether to save after the last step too.

    Raises:
      Interrupted: stopped by a signal, with everything saved.
    """
    while done < total:
        done += advance(done)
        last = done >= total
        wanted = stop.agree(save_last and last, cadence.is_due(done))
        if wanted and (save_last or not last):
            save(done)
            cadence.reset(done)
        if stop.requested and not last:
            writer.wait()
            stop.raise_if_requested()


class Checkpoints:
    """The newest states of one loop, in a directory of their own.

    Args:
      directory: need not exist.
      warn: called with a sentence about everything damaged.
      made_of: what the states belong to; states of something else are not restored.
    """

    def __init__(
        self,
        directory: epath.Path,
        warn: Callable[[str], None],
        made_of: Mapping[str, Any] | None = None,
    ):
        self._directory, self._warn = directory, warn
        self._made_of = dict(made_of or {})

    def restore(self, like: Any) -> tuple[Any, dict[str, Any], int] | None:
        """(state, record, steps done) of the newest that can be trusted, None if there is none."""
        found = processes.first_then_rest(
            lambda: checkpoint.restore_newest(self._directory, like, self._warn)
        )
        if found is not None and found[1].get("made_of") != self._made_of:
            self.delete()
            return None
        return found

    def save(
        self, writer: checkpoint.Writer, state: Any, done: int, record: Mapping[str, Any]
    ) -> None:
        """Starts writing the state after `done` steps; older ones are deleted once it is there."""
        path = checkpoint.step_path(self._directory, done)
        writer.save(path, state, {**record, "made_of": self._made_of}, then=self._prune)

    def delete(self) -> None:
        """Deletes all of them and their directory: they are of no use any more."""
        if processes.is_first() and self._directory.exists():
            checkpoint.delete_unfinished(self._directory)  # of a run that was killed
            checkpoint.prune(self._directory, keep=())
            if not any(self._directory.iterdir()):  # damaged ones were moved aside in it
                self._directory.rmdir()

    def _prune(self):
        steps = checkpoint.complete_steps(self._directory)
        checkpoint.prune(self._directory, keep=steps[-_KEEP:])
