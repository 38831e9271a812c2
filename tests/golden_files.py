"""Access to the stored inputs and outputs of the reference implementation.

`LTDD_GOLDEN_DIR` replaces the search path by one directory, so that the same tests run on other
vectors of the same format. Otherwise the small files in `tests/golden` are used, and the large
ones where they are laid out beside the repository; a test whose file is absent skips.
"""

import os
import pathlib

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def golden_directories() -> list[pathlib.Path]:
    """Directories searched, in order."""
    override = os.environ.get("LTDD_GOLDEN_DIR")
    if override:
        return [pathlib.Path(override)]
    return [_ROOT / "tests" / "golden", _ROOT.parent / "shared" / "spec" / "golden"]


def load_golden(name: str) -> dict[str, np.ndarray]:
    """Reads `name`.npz as a dict of arrays; skips the calling test when the file is nowhere."""
    for directory in golden_directories():
        path = directory / f"{name}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    pytest.skip(f"golden file {name}.npz is in none of {[str(d) for d in golden_directories()]}")


def relative_error(actual, expected) -> float:
    """Relative L2 error of `actual` against `expected`, in float64."""
    actual = np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
