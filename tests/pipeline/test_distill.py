"""Breaks when a set begins with classes of which nothing is known, and nobody is told."""

import types

import numpy as np

from ltdd_jax.pipeline import distill
from ltdd_jax.types import SyntheticSet


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
