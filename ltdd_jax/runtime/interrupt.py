"""Stopping at a safe point when the user or the machine asks for it."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from ltdd_jax.runtime import processes
from ltdd_jax.types import Interrupted


class StopRequest:
    """Set by the first signal; long loops ask it after every step."""

    def __init__(self):
        self._received = 0
        self._agreed = 0

    def request(self, signal_number: int, frame=None) -> None:
        """Signal handler: notes the first signal, obeys a second Ctrl-C at once."""
        del frame
        if self._received and signal_number == signal.SIGINT:
            raise Interrupted(signal_number)
        self._received = signal_number

    def agree(self, *wishes: bool) -> bool:
        """Whether to save now: a signal has arrived, or a wish is true, on any process.

        All processes must call this at the same steps; they all get the same answer.
        """
        # A signal that arrives during the call counts at the next one.
        self._agreed, *wanted = processes.agree_max(self._received, *map(int, wishes))
        return bool(self._agreed) or any(wanted)

    @property
    def requested(self) -> bool:
        """Whether the last `agree` knew of a signal."""
        return self._agreed != 0

    def raise_if_requested(self) -> None:
        """Raises Interrupted if so; call it where everything is saved."""
        if self._agreed:
            raise Interrupted(self._agreed)


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
