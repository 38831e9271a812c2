"""Breaks when a stored number was changed, or when a golden comparison can be left out unseen."""

import hashlib
import os
import subprocess
import sys

import pytest

from tests import golden_files

_TESTS = """
import pytest
@pytest.mark.golden
def test_inside():
    pytest.skip("no file")

@pytest.mark.golden
@pytest.mark.skipif(True, reason="not here")
def test_marked():
    raise AssertionError

@pytest.mark.golden
@pytest.mark.xfail
def test_expected_to_fail():
    raise AssertionError

def test_other():
    pytest.skip("allowed")
"""


def test_files_are_those_of_the_list():
    """The sums are those of the files that the reference wrote; a new file belongs in the list."""
    lines = (golden_files.DIRECTORY / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split() for line in lines)}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in golden_files.DIRECTORY.glob("*.npz")
    }
    assert found == listed and len(listed) == 20


def test_skipped_golden_test_fails(tmp_path):
    (tmp_path / "conftest.py").write_text(
        "from tests.golden_files import pytest_runtest_makereport  # noqa: F401\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  golden: compares\n")
    (tmp_path / "test_some.py").write_text(_TESTS)
    environment = {**os.environ, "PYTHONPATH": str(golden_files.DIRECTORY.parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    # The expected failure counts as well; a skip before the test runs is an error.
    assert "2 failed, 1 skipped, 1 error" in done.stdout
    assert "a golden test must not skip: Skipped: no file" in done.stdout


def test_absent_file_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LTDD_GOLDEN_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="losses"):
        golden_files.load_golden("losses")
