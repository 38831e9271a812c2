"""The geometry of trajectories: pure functions of snapshots.

A snapshot is the nested dict of all parameters of a network, as `TrainedExperts.snapshot` and
`pipeline.Snapshots` read it. `layers` names its parts, `plane`
draws many in two dimensions, `paths` compares a student with its expert, `classes` shows what the
long tail does to classifier and gradients, `curvature` and `slices` look at the loss around
snapshots, `starts` at how hard a trajectory is to match.
"""

from ltdd_jax.geometry.classes import (
    GradientShares,
    class_gradients,
    classifier_norms,
    gradient_shares,
    group_cosine,
)
from ltdd_jax.geometry.curvature import (
    Spectrum,
    curvature_along,
    find_top_eigenvalues,
    hessian_product,
)
from ltdd_jax.geometry.paths import PathComparison, compare_paths
from ltdd_jax.geometry.plane import Plane, fit_plane
from ltdd_jax.geometry.slices import loss_barrier, slice_line, slice_plane
from ltdd_jax.geometry.starts import StartLosses, match_by_start

__all__ = [
    "GradientShares",
    "PathComparison",
    "Plane",
    "Spectrum",
    "StartLosses",
    "class_gradients",
    "classifier_norms",
    "compare_paths",
    "curvature_along",
    "find_top_eigenvalues",
    "fit_plane",
    "gradient_shares",
    "group_cosine",
    "hessian_product",
    "loss_barrier",
    "match_by_start",
    "slice_line",
    "slice_plane",
]
