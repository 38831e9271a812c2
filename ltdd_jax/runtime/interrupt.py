"""Stopping at a safe point when the user or the machine asks for it."""

import contextlib
import os
import signal
import socket
import sys
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


@contextlib.contextmanager
def acknowledge_signals() -> Iterator[None]:
    """Answers Ctrl-C and SIGTERM at once for the duration of the block, from a thread.

    Python runs signal handlers between two steps of its own, and a compilation is one step that
    can take minutes. The thread tells of the first signal, and ends the process at the second;
    what was saved stays usable, as after a kill. For programs only: a notebook must survive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    if handlers[signal.SIGTERM] == signal.SIG_DFL:  # or it would end the process by itself
        signal.signal(signal.SIGTERM, _raise_interrupted)
    thread = threading.Thread(target=_answer, args=(receiver,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handlers[signal.SIGTERM])
        sender.close()  # ends the thread
        thread.join()
        receiver.close()


def _raise_interrupted(number, frame):
    del frame
    raise Interrupted(number)


def _answer(receiver: socket.socket) -> None:
    """Reads the numbers of signals as they come."""
    count = 0
    while number := receiver.recv(1):
        if number[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        count += 1
        name = signal.Signals(number[0]).name
        if count == 1:
            print(
                f"{name}: stopping after this step, with everything saved; again to stop now",
                file=sys.stderr,
                flush=True,
            )
        else:
            print(f"{name} again: stopped at once; the same command continues from the last save",
                  file=sys.stderr, flush=True)  # fmt: skip
            os._exit(128 + number[0])
