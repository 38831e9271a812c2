"""Access to the stored inputs and outputs of the reference implementation.

They lie in `tests/golden`. `LTDD_GOLDEN_DIR` names another directory instead, so that the same
tests run on other vectors of the same format. A golden test never skips: a comparison that does
not happen would look like one that agrees.
"""

import os
import pathlib

import numpy as np
import pytest

DIRECTORY = pathlib.Path(__file__).resolve().parent / "golden"


def load_golden(name: str) -> dict[str, np.ndarray]:
    """Reads `name`.npz as a dict of arrays; FileNotFoundError when it is not there."""
    directory = os.environ.get("LTDD_GOLDEN_DIR") or DIRECTORY
    with np.load(pathlib.Path(directory) / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turns the skip of a test marked `golden` into a failure; `conftest.py` installs it."""
    report = yield
    if report.skipped and item.get_closest_marker("golden"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a golden test must not skip: {reason}"
    return report


def relative_error(actual, expected) -> float:
    """Relative L2 error of `actual` against `expected`, in float64."""
    actual = np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
