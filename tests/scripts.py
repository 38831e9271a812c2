"""The scripts in benchmarks/, which is no package, as modules for tests."""

import importlib
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"


def load_script(name: str):
    """The module benchmarks/NAME.py; its siblings are found while it is read."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)
