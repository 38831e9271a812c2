"""Starting the real program on the tiny config, and comparing what two runs left behind."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "tests" / "pipeline" / "tiny_config.py"
STAGES = ("experts", "distill", "evaluate")

# As in tests/conftest.py, so that programs and tests share compiled code.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONPATH": str(ROOT),
}


class Program:
    """The command line with a shared cache of compiled programs.

    Args:
      cache: directory of that cache.
    """

    def __init__(self, cache: pathlib.Path):
        self.cache = cache

    def arguments(self, workdir: pathlib.Path, *more: str) -> list[str]:
        """The command on the tiny config."""
        return [
            *(sys.executable, "-m", "ltdd_jax.main", f"--config={CONFIG}", f"--workdir={workdir}"),
            *(f"--config.runtime.compilation_cache={self.cache}", *more),
        ]

    def start(self, workdir: pathlib.Path, *more: str, **environment: str) -> subprocess.Popen:
        """Starts it; output and errors come together."""
        return subprocess.Popen(
            self.arguments(workdir, *more),
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, workdir: pathlib.Path, *more: str, expect: int = 0, **environment: str) -> str:
        """Runs it to the end, checks the exit code and returns what it printed."""
        process = self.start(workdir, *more, **environment)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == expect, output
        assert expect == 0 or "Traceback" not in output, output
        return output


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """Makes sure that the process is gone after the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds=120.0) -> bool:
    """Polls every millisecond; False if the process ended or the time was up before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.001)
    return False


def is_saving(directory: pathlib.Path) -> bool:
    """Whether a checkpoint is being written somewhere below."""
    return any(".orbax-checkpoint-tmp" in name for name in names(directory))


def names(directory: pathlib.Path) -> set[str]:
    """Names of all files and directories below, while others may come and go."""
    return {name for _, *kinds in os.walk(directory) for kind in kinds for name in kind}


def artefacts(workdir: pathlib.Path) -> dict[str, object]:
    """All results of a complete run, without times; arrays as bytes with dtype and shape."""
    found: dict[str, object] = {}
    for name in ("config.json", "metrics.jsonl", "synthetic/grid.png", "preprocessing.npz"):
        found[name] = (workdir / name).read_bytes()
    for folder in ("accuracy", "baselines", "evaluate"):
        for path in sorted((workdir / folder).glob("*.json")):
            found[f"{folder}/{path.name}"] = json.loads(path.read_text())
    found["set"] = json.loads((workdir / "set.json").read_text())["identity"]
    report = json.loads((workdir / "report.json").read_text())
    del report["seconds"], report["config"]["runtime"]
    found["report"] = report
    for path in sorted((workdir / "synthetic").glob("*.npz")):
        with np.load(path) as archive:
            for name, array in archive.items():
                found[f"{path.stem}.{name}"] = _freeze(array)
    newest = sorted((workdir / "distill").glob("step_????????"))[-1]
    found |= {f"{newest.name}.{k}": _freeze(v) for k, v in read_arrays(newest).items()}
    return found | snapshots(workdir / "experts")


def snapshots(experts: pathlib.Path) -> dict[str, object]:
    """Every snapshot of every expert, whatever the segments."""
    found = {}
    for segment in sorted(experts.glob("*-????????/group_*/epochs_????_????")):
        kind = segment.parents[1].name.partition("-")[0]
        for name, array in read_arrays(segment).items():
            if name.startswith("expert_"):
                found[f"{kind}.{name}"] = _freeze(array)
    return found


def find_experts(workdir: pathlib.Path, kind: str) -> pathlib.Path:
    """The directory of the experts of one kind, where there is one only."""
    (found,) = (workdir / "experts").glob(f"{kind}-????????")
    return found


def find_result(workdir: pathlib.Path, row: str) -> pathlib.Path:
    """The file with the result of a row, where it was evaluated in one way only."""
    (found,) = workdir.glob(f"*/{row}-????????.json")
    return found


def read_arrays(checkpoint: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, read by Orbax alone."""
    handler = ocp.CompositeCheckpointHandler(tree=ocp.PyTreeCheckpointHandler())
    with ocp.Checkpointer(handler) as reader:
        return reader.restore(checkpoint, args=ocp.args.Composite(tree=ocp.args.PyTreeRestore()))[
            "tree"
        ]


def assert_same(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares all artefacts bit for bit."""
    one, other = artefacts(found), artefacts(expected)
    different = [k for k in one.keys() | other.keys() if one.get(k) != other.get(k)]
    assert not different, sorted(different)


def _freeze(array):
    array = np.asarray(array)
    return array.dtype.str, array.shape, array.tobytes()
