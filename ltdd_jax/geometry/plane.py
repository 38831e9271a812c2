"""The plane, or space, in which several trajectories spread most: exact PCA of many snapshots.

With M snapshots of D parameters, M far below D, the eigenvectors come from the M x M matrix of
inner products (Sirovich, "Turbulence and the dynamics of coherent structures", 1987), so that
neither a D x D matrix nor all snapshots are ever in memory. That the first two axes of one
trajectory show it well is the observation of Li et al., "Visualizing the Loss Landscape of Neural
Nets", NeurIPS 2018.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from ltdd_jax.geometry import layers
from ltdd_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Plane:
    """R axes through the mean of M snapshots; all arrays float64.

    Attributes:
      mean: [D].
      axes: [R, D], orthonormal, by falling variance. The coordinate of largest size along an axis
        is positive.
      variances: [R], mean squares of the coordinates.
      total_variance: mean squared distance of the snapshots from their mean.
      coordinates: [M, R], of the snapshots.
      like: shapes and dtypes of a snapshot.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    total_variance: float
    coordinates: np.ndarray
    like: Params

    @property
    def shares(self) -> np.ndarray:
        """[R], part of the total variance along each axis; a picture of the plane shows the sum."""
        return self.variances / self.total_variance

    def project(self, params: Params) -> np.ndarray:
        """Coordinates [R] of the point of the plane that is nearest to a snapshot."""
        return self.axes @ (layers.flatten(params) - self.mean)

    def lift(self, coordinates: np.ndarray) -> Params:
        """Parameters at the coordinates [R]."""
        return layers.unflatten(self.mean + np.asarray(coordinates) @ self.axes, self.like)


def fit_plane(
    read: Callable[[int], Params], num_snapshots: int, *, num_axes: int = 2, block_size: int = 16
) -> Plane:
    """PCA of snapshots that are read one after another.

    Args:
      read: number of a snapshot, 0 to M - 1, of any trajectory -> its parameters. It is called
        about M · (2 + M / (2 · block_size)) times.
      num_snapshots: M.
      num_axes: R, fewer than M.
      block_size: snapshots in memory at the same time, one more and the axes aside.

    Raises:
      ValueError: the snapshots do not spread in that many directions.
    """
    first = read(0)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first)
    origin = layers.flatten(first)  # taken off first: weights differ little, and squares round
    del first

    def shifted(index):
        return layers.flatten(read(index)) - origin

    gram = _inner_products(shifted, num_snapshots, block_size)
    row_mean = gram.mean(axis=0)
    gram += row_mean.mean() - row_mean[:, None] - row_mean[None]
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:num_axes], vectors[:, ::-1][:, :num_axes]
    rounding = num_snapshots * np.finfo(np.float64).eps * max(values[0], 0.0)
    if len(values) < num_axes or values[-1] <= rounding:
        raise ValueError(
            f"{num_snapshots} snapshots spread in {np.sum(values > rounding)} directions, not in "
            f"num_axes={num_axes}"
        )
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(num_axes)])
    mean, axes = np.zeros_like(origin), np.zeros((num_axes, len(origin)))
    for index in range(num_snapshots):
        point = shifted(index)
        mean += point / num_snapshots
        axes += vectors[index][:, None] * point
    axes -= vectors.sum(axis=0)[:, None] * mean
    return Plane(
        mean=origin + mean,
        axes=axes / np.sqrt(values)[:, None],
        variances=values / num_snapshots,
        total_variance=float(np.trace(gram)) / num_snapshots,
        coordinates=vectors * np.sqrt(values),
        like=like,
    )


def _inner_products(read, count, block_size):
    """[M, M], by blocks of rows: each block meets the snapshots before it once more."""
    gram = np.empty((count, count))
    for begin in range(0, count, block_size):
        block = np.stack([read(i) for i in range(begin, min(begin + block_size, count))])
        rows = slice(begin, begin + len(block))
        gram[rows, rows] = block @ block.T
        for column in range(begin):
            gram[rows, column] = gram[column, rows] = block @ read(column)
    return gram
