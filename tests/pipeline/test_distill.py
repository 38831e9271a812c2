"""Breaks when a set begins with classes of which nothing is known, and nobody is told, or when
a finished one is made again.
"""

import types

import jax
import numpy as np
import pytest

from ltdd_jax.pipeline import artefacts, distill
from ltdd_jax.types import SyntheticSet
from tests.pipeline import small_run


def list_warnings(label_logits):
    """Of a set with two images each of the classes cat, dog and frog."""
    said: list[str] = []
    train = types.SimpleNamespace(class_names=("cat", "dog", "frog"))
    run = types.SimpleNamespace(
        problem=types.SimpleNamespace(train=train),
        workspace=types.SimpleNamespace(warn=said.append),
    )
    synthetic = SyntheticSet(np.zeros((6, 2, 2, 1)), np.asarray(label_logits), np.float32(0.1))
    distill.warn_of_unknown(run, synthetic, np.repeat(np.arange(3, dtype=np.int32), 2))
    return said


def test_classes_without_a_label_are_named():
    logits = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    assert list_warnings(logits) == []
    logits[[3, 4, 5]] = 0  # one of the dogs still has a label
    (said,) = list_warnings(logits)
    assert "an image of frog right" in said and "uniform labels" in said
    logits[2] = 0
    (said,) = list_warnings(logits)
    assert "an image of dog, frog right" in said


@pytest.mark.parametrize("damaged", ["", "initial.npz", "synthetic.npz"])
def test_a_finished_choice_is_not_made_again(tmp_path, damaged):
    """Breaks when other cores, on which the choice may be another, cost all that was evaluated."""
    run = small_run.make_run(tmp_path)
    sets = small_run.write_sets(run)
    first = artefacts.read_set(run, artefacts.FINAL)
    method = types.SimpleNamespace(
        start=lambda: sets[artefacts.INITIAL], init=lambda key, synthetic: synthetic,
        result=lambda state: state, labels=first.labels, partition=1, num_iterations=0,
    )  # fmt: skip
    if damaged:
        path = artefacts.find_set(run, damaged.removesuffix(".npz"))
        path.write_bytes(path.read_bytes()[:-100])
    found = distill.run_distill(run, method)
    expected = sets[artefacts.INITIAL] if damaged else first.synthetic
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    after = artefacts.read_set(run, artefacts.FINAL).synthetic
    jax.tree.map(np.testing.assert_array_equal, after, expected)
