"""Breaks when a change of the mutation run no longer fits the program, or names no test."""

import ast
import functools

import pytest

from tests import mutations
from tests.mutants import Mutant

IDS = [mutant.name for mutant in mutations.MUTANTS]


@functools.cache
def find_tests(path: str) -> set[str]:
    """Names of the test functions of a file."""
    tree = ast.parse((mutations.ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutant", mutations.MUTANTS, ids=IDS)
def test_change_fits_and_its_tests_exist(mutant):
    before = mutations.locate(mutant.file).read_text(encoding="utf-8")
    after = mutations.change(before, mutant)
    assert after != before
    ast.parse(after)
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert name.partition("[")[0] in find_tests(path), test


def test_there_are_enough_and_every_name_is_used_once():
    assert len(set(IDS)) == len(IDS) >= 60
    assert sum(name.startswith("wiring") for name in IDS) >= 6


def test_text_that_is_not_there_once_is_refused():
    with pytest.raises(ValueError, match=r"'twice'.*occurs 2 times in f\.py"):
        mutations.change("a = a\n", Mutant("twice", "f.py", "a", "b", ("t.py::t",)))


def test_page_has_a_row_for_every_change_and_none_survives():
    """Breaks when the list has changed since the last full run."""
    rows = mutations.PAGE.read_text(encoding="utf-8").partition(mutations.MARK)[2]
    killed = dict.fromkeys(IDS, "killed")
    assert rows.endswith(mutations.render_table(mutations.MUTANTS, killed))
