"""Breaks when a parameter changes its place between a snapshot and its vector."""

import numpy as np

from ltdd_jax.geometry import layers

PARAMS = {
    "block": {"conv": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2)}},
    "classifier": {"kernel": np.float32([[7, 8, 9]])},
}


def test_vector_and_back():
    vector = layers.flatten(PARAMS)
    assert vector.dtype == np.float64 and vector.tolist() == [1, 1, 0, 1, 2, 3, 4, 5, 7, 8, 9]
    back = layers.unflatten(2 * vector, PARAMS)
    kernel = back["block"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, 2 * PARAMS["block"]["conv"]["kernel"])
    assert back["classifier"]["kernel"].tolist() == [[14, 16, 18]]


def test_layers_are_named_by_their_path():
    parts = layers.split_layers(PARAMS)
    assert {name: part.tolist() for name, part in parts.items()} == {
        "block/conv": [1, 1, 0, 1, 2, 3, 4, 5],
        "classifier": [7, 8, 9],
    }
