"""Backbone, classifier and running statistics, told apart by the path of a parameter."""

from collections.abc import Callable

import flax.traverse_util

from ltdd_jax.types import Params

CLASSIFIER = "classifier"  # name of the last linear layer in every network
STATISTICS = "statistics"  # holds what batch norms have seen; no gradient ever moves it


def is_classifier(path: tuple[str, ...]) -> bool:
    """Whether the parameter at `path` belongs to the classifier."""
    return path[0] == CLASSIFIER


def split(params: Params, predicate: Callable = is_classifier) -> tuple[Params, Params]:
    """Splits into (backbone, classifier): the leaves where `predicate(path)` is False / True."""
    flat = flax.traverse_util.flatten_dict(params)
    chosen = {path: leaf for path, leaf in flat.items() if predicate(path)}
    rest = {path: leaf for path, leaf in flat.items() if not predicate(path)}
    return flax.traverse_util.unflatten_dict(rest), flax.traverse_util.unflatten_dict(chosen)


def merge(backbone: Params, classifier: Params) -> Params:
    """Inverse of `split`."""
    flat = flax.traverse_util.flatten_dict(backbone) | flax.traverse_util.flatten_dict(classifier)
    return flax.traverse_util.unflatten_dict(flat)


def split_statistics(params: Params) -> tuple[Params, Params]:
    """Splits into (what gradients move, running statistics); {} where there are none."""
    return {k: v for k, v in params.items() if k != STATISTICS}, params.get(STATISTICS, {})


def merge_statistics(trained: Params, statistics: Params) -> Params:
    """Inverse of `split_statistics`."""
    return {**trained, STATISTICS: statistics} if statistics else trained
