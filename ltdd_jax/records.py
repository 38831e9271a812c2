"""Nested dicts of plain values, such as the settings that made a file: flat view, comparison."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Fields in which two identities differ, e.g. "experts.representation.rho: 0.01 -> 0.02"."""
    old, new = flatten(before), flatten(after)

    def show(values, path):
        return repr(values[path]) if path in values else "absent"

    return [
        f"{path}: {show(old, path)} -> {show(new, path)}"
        for path in sorted(old.keys() | new.keys())
        if path not in old or path not in new or old[path] != new[path]
    ]
