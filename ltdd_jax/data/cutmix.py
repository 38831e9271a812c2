"""Cutmix: a box of every image comes from another one (Yun et al., ICCV 2019, section 3.1)."""

import jax
import jax.numpy as jnp


def cutmix(key, images, chance: float = 1.0):
    """Mixes a batch with itself.

    The box is the same for all images of the batch: its area is that of a uniform share before it
    is cut at the borders, its centre is anywhere in the image.

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      chance: with which the batch is mixed at all.

    Returns:
      Images [B, H, W, C]; partners int32 [B], the rows the boxes come from; and the share of the
      image that is its own, a scalar in [0, 1]: labels weigh it and one minus it.
    """
    batch, height, width, _ = images.shape
    keys = jax.random.split(key, 5)
    partners = jax.random.permutation(keys[0], batch)
    side = jnp.sqrt(jax.random.uniform(keys[1]))
    in_rows = _interval(keys[2], height, side)
    in_cols = _interval(keys[3], width, side)
    box = in_rows[:, None] & in_cols[None, :] & (jax.random.uniform(keys[4]) < chance)
    mixed = jnp.where(box[None, :, :, None], images[partners], images)
    return mixed, partners, 1 - box.mean(dtype=jnp.float32)


def _interval(key, length: int, share):
    """bool [length]: about `share` of it around a uniform centre, cut at the ends."""
    centre = jax.random.randint(key, (), 0, length)
    half = (share * length).astype(jnp.int32) // 2
    place = jnp.arange(length)
    return (place >= centre - half) & (place < centre + half)
