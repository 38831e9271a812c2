"""k-means with fixed shapes, so that it can run inside a compiled step."""

import jax
import jax.numpy as jnp

_HIGHEST = jax.lax.Precision.HIGHEST


def find_centres(key, points, present, count: int, max_steps: int):
    """Centres by Lloyd's algorithm from a start by k-means++ (Arthur and Vassilvitskii, 2007).

    Args:
      key: PRNG key.
      points: [n, F].
      present: bool [n], False for padding.
      count: k. With fewer points than that the first n centres are the points, and the rest
        repeat one of them.
      max_steps: of the algorithm, which ends earlier when no centre moves.

    Returns:
      [k, F].
    """
    start = _spread_centres(key, points, present, count)

    def move(carry):
        step, centres, _ = carry
        nearest = jnp.argmin(measure_distances(points, centres), axis=1)
        is_of = (nearest[:, None] == jnp.arange(count)[None]) & present[:, None]
        is_of = is_of.astype(points.dtype)
        sizes = is_of.sum(axis=0)[:, None]
        sums = jnp.matmul(is_of.T, points, precision=_HIGHEST)
        # A centre without points stays where it is.
        moved = jnp.where(sizes > 0, sums / jnp.maximum(sizes, 1), centres)
        return step + 1, moved, (moved != centres).any()

    def goes_on(carry):
        step, _, has_moved = carry
        return (step < max_steps) & has_moved

    return jax.lax.while_loop(goes_on, move, (0, start, jnp.bool_(True)))[1]


def find_nearest(centres, points, present):
    """int32 [k], the point nearest to every centre; never padding."""
    distances = measure_distances(centres, points)
    return jnp.argmin(jnp.where(present[None], distances, jnp.inf), axis=1).astype(jnp.int32)


def measure_distances(a, b):
    """Squared Euclidean distances [n, m] of rows [n, F] and [m, F]."""
    products = jnp.matmul(a, b.T, precision=_HIGHEST)
    squares = jnp.square(a).sum(axis=1)[:, None] + jnp.square(b).sum(axis=1)[None]
    return jnp.maximum(squares - 2 * products, 0)


def _spread_centres(key, points, present, count):
    """k-means++: the next centre is a point, drawn by its squared distance from those before."""

    def draw(key, shares):
        return jax.random.categorical(key, jnp.where(present, jnp.log(shares), -jnp.inf))

    first_key, key = jax.random.split(key)
    first = points[draw(first_key, jnp.ones(len(points)))]

    def add(carry, key):
        nearest, last = carry
        nearest = jnp.minimum(nearest, jnp.square(points - last[None]).sum(axis=1))
        centre = points[draw(key, nearest)]
        return (nearest, centre), last

    distances = jnp.full(len(points), jnp.inf, points.dtype)
    _, centres = jax.lax.scan(add, (distances, first), jax.random.split(key, count))
    return centres
