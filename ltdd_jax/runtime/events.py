"""Event files, which TensorBoard shows while a run goes on; written by tensorboardX."""

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from ltdd_jax.runtime import files, processes
from ltdd_jax.types import UserError

_BINS = 64  # of a histogram


class EventLog:
    """Event files of the stages of a run, a directory each; TensorBoard calls these its runs.

    Args:
      root: directory of the stages' directories; need not exist.
      wanted: without it, or on another process than the first, nothing is written.

    Raises:
      UserError: wanted, but tensorboardX is not installed, or `root` is in an object store.
    """

    def __init__(self, root: epath.Path, wanted: bool):
        self._root = root
        self._writers: dict[str, Any] = {}
        if wanted:
            _require(root)
        self._enabled = wanted and processes.is_first()

    @contextlib.contextmanager
    def record(self, stage: str, done: int) -> Iterator[None]:
        """Within it the stage has a file, which continues after step `done`.

        Readers pass over what earlier files have for later steps; 0 starts over, step 0 included.

        Raises:
          UserError: the file cannot be written.
        """
        if not self._enabled:
            yield
            return
        self._writers[stage] = _open_file(self._root / stage, done)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk: the write before has said so
                self._writers.pop(stage).close()

    def write(
        self,
        stage: str,
        step: int,
        *,
        scalars: Mapping[str, float] | None = None,
        images: Mapping[str, np.ndarray] | None = None,
        histograms: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Adds events of one step; they are on disk when the call returns.

        Args:
          stage: one that `record` is open for.
          step: of its loop.
          scalars: name -> number.
          images: name -> uint8 [H, W, C].
          histograms: name -> finite numbers of any shape.

        Raises:
          UserError: the file cannot be written.
        """
        if not self._enabled:
            return
        parts = _make_events(step, scalars or {}, images or {}, histograms or {})
        writer = self._writers[stage]
        try:  # not with its SummaryWriter, whose thread may lose events and hides a full disk
            for part in parts:
                writer.write_event(part)
            writer.flush()
        except OSError as error:
            raise files.cannot_write(self._root / stage, error) from error

    def replace(self, stage: str, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Makes (step, scalars) of `rows` the only events of `stage`."""
        if not self._enabled:
            return
        shutil.rmtree(self._root / stage, ignore_errors=True)
        with self.record(stage, 0):
            for step, scalars in rows:
                self.write(stage, step, scalars=scalars)


def _open_file(directory, done):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names, which begin with the second.
        writer = EventsWriter(str(directory / "events"), f".{done:09d}")
        # Readers pass over what earlier files have from this step on.
        begin = Event(step=done + 1 if done else 0, wall_time=time.time())
        begin.session_log.status = SessionLog.START
        writer.write_event(begin)
        writer.flush()
        return writer
    except OSError as error:
        raise files.cannot_write(directory, error) from error


def _make_events(step, scalars, images, histograms):
    from tensorboardX import summary
    from tensorboardX.proto.event_pb2 import Event

    parts = [summary.scalar(name, float(x)) for name, x in scalars.items()]
    parts += [summary.image(name, x, dataformats="HWC") for name, x in images.items()]
    parts += [summary.histogram(name, x, _BINS) for name, x in histograms.items()]
    return [Event(step=step, summary=part, wall_time=time.time()) for part in parts]


def _require(root: epath.Path) -> None:
    if not files.is_local(root):
        raise UserError(
            f"--config.runtime.tensorboard=true needs a --workdir on a file system, not {root}: "
            "leave it out, metrics.jsonl has the same numbers"
        )
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--config.runtime.tensorboard=true needs tensorboardX, which is not installed: "
            "pip install 'ltdd_jax[tensorboard]'"
        ) from error
