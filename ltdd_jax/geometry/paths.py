"""How a student's path lies to the path of the expert it should follow, layer by layer.

The end of a path is all that the matching loss sees (MTT, Cazenavette et al., CVPR 2022, eq. 2);
these numbers tell which layers it comes from and whether the student goes the same way.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from ltdd_jax.geometry import layers
from ltdd_jax.types import Params

ALL = "all"  # name under which all layers together stand


@dataclasses.dataclass(frozen=True)
class PathComparison:
    """Arrays float64 [P], one number per point of the student's path.

    The unit of length is the distance between start and target of the expert. Where the expert did
    not move, everything is NaN.

    Attributes:
      remaining: distance to the target; its square over all layers is the matching loss.
      distance: distance to the nearest point of the expert's path, taken as straight between
        snapshots.
      angle: degrees between the way from the start to the point and the way to the target; NaN at
        the start.
    """

    remaining: np.ndarray
    distance: np.ndarray
    angle: np.ndarray


def compare_paths(student: Iterable[Params], expert: Sequence[Params]) -> dict[str, PathComparison]:
    """Compares the points of a student with the snapshots of an expert.

    Args:
      student: P points; they are read once.
      expert: two or more snapshots, from the start θ*_t to the target θ*_{t+M}.

    Returns:
      Layer -> comparison; "all" for all layers together.

    Raises:
      ValueError: fewer than two snapshots.
    """
    if len(expert) < 2:
        raise ValueError(f"the path of an expert has two snapshots or more, not {len(expert)}")
    paths = _stack([_name_parts(params) for params in expert])
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in paths}
    for params in student:
        for name, point in _name_parts(params).items():
            found[name].append(_compare(point, paths[name]))
    return {
        name: PathComparison(*np.array(rows, np.float64).reshape(-1, 3).T)
        for name, rows in found.items()
    }


def _name_parts(params):
    return layers.split_layers(params) | {ALL: layers.flatten(params)}


def _stack(parts):
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _compare(point, path):
    """(remaining, distance, angle) of one point [D] to one path [M + 1, D]."""
    way, gone = path[-1] - path[0], point - path[0]
    unit, length = np.linalg.norm(way), np.linalg.norm(gone)
    if unit == 0:
        return np.nan, np.nan, np.nan
    remaining = np.linalg.norm(point - path[-1]) / unit
    distance = min(map(_distance_to_segment, [point] * (len(path) - 1), path[:-1], path[1:])) / unit
    if length == 0:
        return remaining, distance, np.nan
    cosine = np.clip(gone @ way / (length * unit), -1, 1)
    return remaining, distance, np.degrees(np.arccos(cosine))


def _distance_to_segment(point, begin, end):
    way, gone = end - begin, point - begin
    square = way @ way
    position = np.clip(gone @ way / square, 0, 1) if square > 0 else 0.0
    return np.linalg.norm(gone - position * way)
