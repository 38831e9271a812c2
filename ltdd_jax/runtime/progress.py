"""Progress of a long loop: a bar on a terminal, now and then a line in a log file."""

import collections
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import tqdm

from ltdd_jax.runtime import processes

_LINE_SECONDS = 10.0  # between lines where there is no terminal
_LINES = 6  # that the rate looks back on: what was long ago, a suspended machine say, is forgotten
_SMOOTHING = 0.1  # weight of the newest reading in the rate of a bar
_COMPILING = "compiling …"
_PATIENCE = 1.0  # seconds after which the first step says what it waits for

Advance = Callable[..., None]


@contextlib.contextmanager
def progress(
    total: int,
    *,
    initial: int = 0,
    desc: str = "",
    unit: str = "step",
    enabled: bool | None = None,
    stream: TextIO | None = None,
) -> Iterator[Advance]:
    """Shows the rate and the time left while the block runs.

    Args:
      total: units of the whole loop.
      initial: units done before, when resuming; they do not count for the rate.
      desc: what is going on.
      unit: name of one unit.
      enabled: False shows nothing; None is True on the first process only.
      stream: standard error if None.

    Yields:
      `advance(num_units=1, **values)`: counts units and shows values such as loss=0.9.
    """
    stream = stream or sys.stderr
    enabled = processes.is_first() if enabled is None else enabled
    if enabled and not stream.isatty():
        advance, announce = _make_line_writer(total, initial, desc, unit, stream)
        try:
            yield advance
        finally:
            announce.cancel()
        return
    with tqdm.tqdm(
        total=total, initial=initial, desc=desc, unit=unit, disable=not enabled, file=stream,
        dynamic_ncols=True, smoothing=_SMOOTHING,
    ) as bar:  # fmt: skip
        bar.set_postfix_str(_COMPILING)
        compiled = False

        def advance(num_units: int = 1, **values: Any) -> None:
            nonlocal compiled
            if values or not compiled:
                bar.set_postfix_str(_show_values(values), refresh=False)
            if not compiled and enabled:  # what the compiler took does not count for the rate
                bar.start_t = bar.last_print_t = time.time()
            bar.update(num_units)
            if not compiled and enabled:
                compiled = True
                bar.initial = bar.last_print_n = bar.n

        yield advance


def _make_line_writer(
    total: int, initial: int, desc: str, unit: str, stream: TextIO
) -> tuple[Advance, threading.Timer]:
    start = last_line = time.monotonic()
    done, begin, shown = initial, initial, {}
    marks = collections.deque([(start, begin)], maxlen=_LINES)  # (time, units done) of lines
    announce = threading.Timer(_PATIENCE, print, (f"{desc}: {_COMPILING}",), {"file": stream})
    announce.daemon = True
    if initial < total:
        announce.start()

    def advance(num_units: int = 1, **values: Any) -> None:
        nonlocal done, last_line, begin
        now = time.monotonic()
        if begin == done == initial:  # the first call waited for the compiler
            announce.cancel()
            if now - start >= _PATIENCE:
                text = f"{desc}: compiled, and the first {unit} done, in {now - start:.0f} s"
                print(text, file=stream, flush=True)
            begin = done + num_units
            marks[0] = now, begin
        done += num_units
        shown.update(values)
        if now - last_line < _LINE_SECONDS and done < total:
            return
        last_line, (since, before) = now, marks[0]
        rate = (done - before) / max(now - since, 1e-9)
        if done > begin:
            marks.append((now, done))
        parts = [f"{done}/{total} {unit}"]
        if rate:
            left = tqdm.tqdm.format_interval((total - done) / rate)
            parts += [_show_rate(rate, unit), f"{left} left"]
        if shown:
            parts.append(_show_values(shown))
        print(f"{desc}: {', '.join(parts)}", file=stream, flush=True)

    return advance, announce


def _show_rate(rate: float, unit: str) -> str:
    return f"{rate:.2f} {unit}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.2f} s/{unit}"


def _show_values(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )
