"""Runs pytest in copies of a process that has imported the libraries; for `tests/mutations.py`.

Importing them takes longer than many a test. A line of standard input is a job, {"tree", "output",
"tests", "seconds"} in JSON; its exit code is printed as a line.
"""

import importlib
import json
import os
import signal
import sys

_LIBRARIES = ("pytest", "jax", "flax.linen", "optax", "orbax.checkpoint", "ml_collections",
              "scipy.linalg", "PIL.Image")  # fmt: skip


def run(job):
    """In the copy: changes to the tree and does not return."""
    signal.alarm(job["seconds"])
    os.chdir(job["tree"])
    sys.path[0] = os.environ["PYTHONPATH"] = job["tree"]
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={job['tree']}.temporary"]
    code = importlib.import_module("pytest").main([*options, *job["tests"]])
    sys.stdout.flush()
    os._exit(int(code))


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    for library in _LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        copy = os.fork()
        if not copy:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
