"""Stopping at a safe point when the user or the machine asks for it."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from ltdd_jax.types import Interrupted


class StopRequest:
    """Set by the first signal; long loops look at it after every step."""

    def __init__(self):
        self._signal: int | None = None

    def request(self, signal_number: int, frame=None) -> None:
        """Signal handler: notes the first signal, obeys a second Ctrl-C at once."""
        del frame
        if self._signal is not None and signal_number == signal.SIGINT:
            raise Interrupted(signal_number)
        self._signal = signal_number

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._signal is not None

    def raise_if_requested(self) -> None:
        """Raises Interrupted after a signal; call it where everything is saved."""
        if self._signal is not None:
            raise Interrupted(self._signal)


@contextlib.contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Catches SIGINT and SIGTERM for the duration of the block (main thread only)."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, stop.request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
