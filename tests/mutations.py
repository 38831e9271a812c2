"""Changes the program in many wrong ways, one at a time, and sees whether the tests notice.

    python tests/mutations.py                 all changes
    python tests/mutations.py --list          their names
    python tests/mutations.py --only TEXT     those whose name contains TEXT
    python tests/mutations.py --missing       those without a result, after a run that was cut
    python tests/mutations.py --jobs N        N at a time

Every change is made in a copy of the tree, where only the tests named with it run. It is killed
when at least one of them fails. The results go into the table of docs/testing.md, where those of
changes that were not made keep their place. The exit code is 1 when a change survives.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # run as a script, its directory is on the path instead of the root
    sys.path[0] = str(ROOT)

import ltdd_jax  # noqa: E402
from tests.mutants import (  # noqa: E402
    Mutant,
    data,
    distillation,
    estimates,
    labels,
    matching,
    recovery,
    teachers,
)

_PARTS = (data, distillation, estimates, labels, matching, recovery, teachers)
MUTANTS = [mutant for part in _PARTS for mutant in part.MUTANTS]
PAGE = ROOT / "docs" / "testing.md"
MARK = "<!-- written by tests/mutations.py -->"
# Where each part lies; the package may be an installed one.
_SOURCES = {"ltdd_jax": pathlib.Path(ltdd_jax.__file__).parent}
_COPIED = ("ltdd_jax", "tests", "configs", "pyproject.toml")
_SECONDS = 600  # a test that runs longer has not noticed anything


def change(text: str, mutant: Mutant) -> str:
    """`text` of the mutant's file, changed.

    Raises:
      ValueError: the old text does not occur exactly once, so that nobody knows what is tested.
    """
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(
            f"mutant {mutant.name!r}: {mutant.old!r} occurs {count} times in {mutant.file}"
        )
    return text.replace(mutant.old, mutant.new)


def locate(file: str) -> pathlib.Path:
    """The file or directory of that path from the root."""
    first, *rest = pathlib.PurePosixPath(file).parts
    return _SOURCES.get(first, ROOT / first).joinpath(*rest)


def copy_tree(destination: pathlib.Path) -> None:
    """Copies what the tests need."""
    for name in _COPIED:
        source = locate(name)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, destination / name, ignore=ignored)
        else:
            shutil.copy(source, destination / name)


class Tree:
    """A copy of the tree, with a process that runs tests in it.

    Args:
      path: where the copy comes to lie; what is written beside it begins with the same name.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        copy_tree(path)
        environment = {
            # What a change leaves alone is compiled once for all of them.
            "JAX_COMPILATION_CACHE_DIR": str(path.parent / "compiled"),
            **os.environ,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing them takes longer than many a test
        }
        runner = ROOT / "tests" / "mutants" / "runner.py"
        self._runner = subprocess.Popen(
            [sys.executable, runner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def close(self) -> None:
        """Ends the process."""
        self._runner.communicate()

    def run_tests(self, tests: tuple[str, ...]) -> tuple[int, str]:
        """Returns pytest's exit code, negative if it took too long, and what it printed."""
        output = self.path.with_suffix(".log")
        job = {
            "tree": str(self.path), "output": str(output), "tests": tests, "seconds": _SECONDS
        }  # fmt: skip
        self._runner.stdin.write(json.dumps(job) + "\n")
        self._runner.stdin.flush()
        code = int(self._runner.stdout.readline())
        return code, output.read_text(encoding="utf-8")


def judge(tree: Tree, mutant: Mutant) -> tuple[str, float]:
    """Makes the change, runs its tests, undoes it; returns "killed" or "survived", and seconds.

    Raises:
      RuntimeError: the tests could not be run.
    """
    path, start = tree.path / mutant.file, time.monotonic()
    original = path.read_text(encoding="utf-8")
    path.write_text(change(original, mutant), encoding="utf-8")
    try:
        code, output = tree.run_tests(mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    if code not in (0, 1):
        raise RuntimeError(f"mutant {mutant.name!r}: pytest ended with {code}\n{output[-3000:]}")
    return ("killed" if code else "survived"), time.monotonic() - start


def run_all(mutants: list[Mutant], jobs: int) -> dict[str, str]:
    """Judges all mutants, `jobs` at a time; name -> "killed" or "survived"."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        trees, lock = queue.SimpleQueue(), threading.Lock()
        for number in range(jobs):
            tree = Tree(pathlib.Path(scratch) / f"tree_{number}")
            stack.callback(tree.close)
            trees.put(tree)
        tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        tree = trees.get()
        code, output = tree.run_tests(tests)
        trees.put(tree)
        if code:
            raise RuntimeError(f"the tests fail without any change\n{output[-5000:]}")

        def one(mutant):
            tree = trees.get()
            try:
                verdict, seconds = judge(tree, mutant)
            finally:
                trees.put(tree)
            print(f"{verdict:8}  {seconds:5.1f} s  {mutant.name}", flush=True)
            with lock:  # so that a run that is cut keeps what it has found
                write_page(MUTANTS, {mutant.name: verdict})
            return verdict

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            return dict(zip([m.name for m in mutants], pool.map(one, mutants), strict=True))


def render_table(mutants: list[Mutant], verdicts: dict[str, str]) -> str:
    """The table of the page, a row per mutant."""
    rows = ["| change | file | tests | result |", "|---|---|---|---|"]
    for mutant in mutants:
        tests = ", ".join(f"`{test.partition('::')[2]}`" for test in mutant.tests)
        rows.append(f"| {mutant.name} | `{mutant.file}` | {tests} | {verdicts[mutant.name]} |")
    return "\n".join(rows) + "\n"


def read_page() -> dict[str, str]:
    """The results in docs/testing.md; name -> "killed", "survived" or "not run"."""
    table = PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if " | `" in line]
    return {row[0]: row[-1] for row in rows}


def write_page(mutants: list[Mutant], verdicts: dict[str, str]) -> None:
    """Replaces the table of docs/testing.md; what `verdicts` leaves out stays as it was."""
    text, before = PAGE.read_text(encoding="utf-8").partition(MARK)[0], read_page()
    verdicts = {m.name: before.get(m.name, "not run") for m in mutants} | verdicts
    PAGE.write_text(f"{text}{MARK}\n\n{render_table(mutants, verdicts)}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--only", default="", metavar="TEXT", help="names that contain TEXT")
    parser.add_argument("--missing", action="store_true", help="only those without a result")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="changes at a time")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    if options.missing:
        done = {name for name, verdict in read_page().items() if verdict != "not run"}
        chosen = [mutant for mutant in chosen if mutant.name not in done]
    if not chosen and not options.missing:
        parser.error(f"no change has {options.only!r} in its name; --list shows them")
    if options.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    verdicts = run_all(chosen, max(options.jobs, 1))
    survived = [name for name, verdict in verdicts.items() if verdict == "survived"]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} changes were noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
