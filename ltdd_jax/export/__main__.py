"""python -m ltdd_jax.export DIR --format=png|huggingface|torch|tfds|webdataset --out=FOLDER"""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from ltdd_jax import export
from ltdd_jax.dataset import load_dataset
from ltdd_jax.errors import Interrupted, UserError


def main(argv: Sequence[str] | None = None, program: str = "python -m ltdd_jax.export") -> int:
    """Runs the command line.

    Args:
      argv: arguments after the name of the program; None takes those of the process.
      program: how it was called, for its help.

    Returns:
      0, 2 for a user's mistake, 130 for Ctrl-C or 143 for SIGTERM.
    """
    args = make_parser(program).parse_args(argv)
    try:
        with _raise_at_signals():
            dataset = load_dataset(args.directory, args.set).expand()
            folder = export.export_dataset(dataset, args.format, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"stopped by {stopped}: nothing was written", file=sys.stderr)
        return stopped.exit_code
    print(
        f"{len(dataset.labels)} images of {dataset.num_classes} classes are in {folder}; its "
        "README.md says how to load them"
    )
    return 0


def make_parser(program: str) -> argparse.ArgumentParser:
    """What the command line may be; `program` is how it was called, for its help."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Write a distilled set for other libraries, which read it without ltdd_jax.",
    )
    parser.add_argument("directory", metavar="DIR", help="the --workdir of a run")
    parser.add_argument("--format", required=True, choices=export.FORMATS)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="new or empty folder")
    parser.add_argument("--set", default="", metavar="NAME", help="the --set of the run")
    return parser


@contextlib.contextmanager
def _raise_at_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise Interrupted, so that half a folder is removed."""

    def stop(number, frame):
        del frame
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # where signals cannot be caught
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
