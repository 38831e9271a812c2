"""Breaks when a log file is flooded, the time left is wrong, or other processes print too."""

import io
import re
import time

import pytest

from ltdd_jax.runtime import progress as module
from ltdd_jax.runtime.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_terminal_a_line_now_and_then(clock):
    stream = io.StringIO()
    with progress(100, desc="distill", unit="step", stream=stream) as advance:
        for _ in range(100):
            clock[0] += 0.5
            advance(loss=0.25)
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert lines[0] == "distill: 20/100 step, 2.00 step/s, 00:40 left, loss=0.25"
    assert "compil" not in stream.getvalue()  # the first step was quick
    assert len(lines) == 5  # every 10 of 50 seconds, and the end is the last of them
    assert lines[-1].startswith("distill: 100/100 step") and "00:00 left" in lines[-1]


def test_rate_leaves_out_what_was_done_before(clock):
    stream = io.StringIO()
    with progress(10, initial=4, desc="experts", unit="epoch", stream=stream) as advance:
        clock[0] += 0.5
        advance()
        clock[0] += 10
        advance(1)
    assert stream.getvalue() == "experts: 6/10 epoch, 10.00 s/epoch, 00:40 left\n"


def test_rate_leaves_out_the_first_call(clock):
    """Breaks when the time of the compiler is taken for that of a step, or is not told."""
    stream = io.StringIO()
    with progress(100, desc="distill", unit="step", stream=stream) as advance:
        clock[0] += 60
        advance()
        clock[0] += 10
        advance(10)
    assert stream.getvalue().splitlines() == [
        "distill: compiled, and the first step done, in 60 s",
        "distill: 1/100 step",
        "distill: 11/100 step, 1.00 step/s, 01:29 left",
    ]


def test_rate_forgets_a_pause(clock):
    """Breaks when a machine that slept shows a wrong rate for the rest of the run."""
    stream = io.StringIO()
    with progress(1000, desc="distill", unit="step", stream=stream) as advance:
        for step in range(200):
            clock[0] += 3600 if step == 50 else 1
            advance()
    lines = stream.getvalue().splitlines()
    assert len(lines) > 8
    assert " 1.00 step/s, 13:29 left" in lines[-1]


def test_terminal_forgets_a_pause(monkeypatch):
    """Breaks when a bar averages since its start."""
    now = [1000.0]
    for holder in (module.time, module.tqdm.std):
        monkeypatch.setattr(holder, "time", lambda: now[0])
    stream = Terminal()
    with progress(1000, desc="distill", stream=stream) as advance:
        for step in range(150):
            now[0] += 600 if step == 50 else 0.5
            advance()
    last = stream.getvalue().replace(" ", "").split("\r")[-2]  # the last one sums up
    assert float(re.search(r"([\d.]+)step/s", last)[1]) == pytest.approx(2.0, abs=0.1)


def test_a_first_step_that_takes_long_is_announced(monkeypatch):
    """Breaks when nothing is said while the compiler works, or it is said of a quick step too."""
    monkeypatch.setattr(module, "_PATIENCE", 0.02)
    stream = io.StringIO()
    with progress(2, desc="distill", stream=stream) as advance:
        end = time.monotonic() + 10
        while not stream.getvalue() and time.monotonic() < end:
            time.sleep(0.005)
        assert stream.getvalue() == "distill: compiling …\n"
        advance()
    before = stream.getvalue()
    with progress(2, desc="other", stream=stream) as advance:
        advance(2)
    time.sleep(0.05)
    assert "other: compiling" not in stream.getvalue().removeprefix(before)


def test_terminal_counts_from_the_first_step_on():
    """Breaks when a bar takes the time of the compiler for that of a step."""
    stream = Terminal()
    with progress(3, desc="distill", stream=stream) as advance:
        assert "compiling …" in stream.getvalue()
        time.sleep(0.3)
        advance()
        advance(2)
    rate = float(re.findall(r"([\d.]+)step/s", stream.getvalue().replace(" ", ""))[-1])
    assert rate > 50


def test_terminal_shows_a_bar_with_values():
    stream = Terminal()
    with progress(2, desc="distill", stream=stream) as advance:
        advance(loss=0.5, note="a")
        advance()
    assert "distill: 100%" in stream.getvalue()
    assert "loss=0.5, note=a" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_disabled_shows_nothing(stream):
    with progress(1, stream=stream, enabled=False) as advance:
        advance(loss=1.0)
    assert stream.getvalue() == ""
