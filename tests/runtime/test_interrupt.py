"""Breaks when Ctrl-C is not answered while the compiler works, or a second one does not end it."""

import signal
import subprocess
import sys
import threading

import pytest

from ltdd_jax.runtime import interrupt
from ltdd_jax.types import Interrupted

# Hashing again and again is one step of the interpreter that lets other threads run, as a
# compilation is: no handler of Python's runs meanwhile.
BUSY = """
import hashlib
from ltdd_jax.runtime.interrupt import acknowledge_signals, watch_signals
from ltdd_jax.types import Interrupted
try:
    with acknowledge_signals(), watch_signals() as stop:
        print("busy", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", LENGTH)
        stop.raise_if_received()
except Interrupted as stopped:
    print("stopped", flush=True)
    raise SystemExit(stopped.exit_code)
"""


def start(length):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.replace("LENGTH", length)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "busy\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_is_answered_and_second_ends_the_process(number, code):
    """Breaks when either waits for the step, which here takes for ever."""
    process = start("10**9")
    killer = threading.Timer(30, process.kill)  # should it not answer at all
    killer.start()
    process.send_signal(number)
    answer = process.stderr.readline()
    assert answer.startswith(f"{number.name}: stopping after this step")
    assert "again to stop now" in answer
    process.send_signal(number)
    output, errors = process.communicate()
    killer.cancel()
    assert process.returncode == code, errors
    assert errors.startswith(f"{number.name} again: stopped at once")
    assert "stopped" not in output


def test_one_signal_lets_the_step_end():
    process = start("10**6")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "stopped\n"), errors
    assert errors.count("\n") == 1


def test_handlers_are_as_before_afterwards():
    """Breaks when a notebook or a test is left without its Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with interrupt.acknowledge_signals(), interrupt.watch_signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in numbers] == before
    descriptor = signal.set_wakeup_fd(-1)
    assert descriptor == -1


def test_second_signal_raises_where_no_program_answers():
    """Breaks when a notebook cannot be stopped inside a long step."""
    stop = interrupt.StopRequest()
    stop.request(signal.SIGINT)
    with pytest.raises(Interrupted):
        stop.request(signal.SIGINT)


EARLY = """
import sys, time, types
from ltdd_jax import command_line, main
def check_data(settings):
    print("checking", flush=True)
    time.sleep(60)
command_line.check_data = check_data
main._CONFIG = types.SimpleNamespace(value=types.SimpleNamespace(name="x"))
main._WORKDIR = types.SimpleNamespace(value="")
main.main([])
"""


def test_ctrl_c_before_anything_has_begun_is_one_line():
    """Breaks when it ends in a traceback of whatever was being imported or read."""
    process = subprocess.Popen(
        [sys.executable, "-c", EARLY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "checking\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "stopped by SIGINT: nothing has begun\n")
