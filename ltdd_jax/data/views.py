"""Augmented views of a labelled set: each is reproduced by a key and its number.

A view is one pass over the set: a random resized crop of every image, mirrored or not, with a patch
of another image's crop in it (cutmix). A student that asks its teacher sees a new view every epoch;
a set that needs no teacher stores the teacher's labels of some views, and what reproduces them.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.data import crops
from ltdd_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How views are drawn.

    Attributes:
      area: smallest and largest share of the picture in a crop.
      flip: whether every other crop is mirrored on average.
      cutmix: both parameters of the Beta distribution of the kept share; 0 mixes nothing.
    """

    area: tuple[float, float] = crops.FULL_AREA
    flip: bool = True
    cutmix: float = 1.0

    def describe(self) -> str:
        """As the words of a report."""
        words = [f"random resized crop (area {self.area[0]:g} to {self.area[1]:g})"]
        words += ["flip"] * self.flip + [f"cutmix ({self.cutmix:g})"] * (self.cutmix > 0)
        return ", ".join(words)


@flax.struct.dataclass
class Draws:
    """All random numbers of a view of S images.

    Attributes:
      boxes: [S] crops.
      partners: int32 [S], a permutation: whose crop the patch of each image is cut from.
      patches: [S]; None without cutmix.
    """

    boxes: crops.Boxes
    partners: Array
    patches: crops.Patches | None


@dataclasses.dataclass(frozen=True)
class StoredViews:
    """The labels of some views of a set, with what reproduces these views.

    Attributes:
      logits: floating [V, S, K], what a network is to answer to image s in view v.
      key: uint32 [2], data of the key of all views.
      recipe: how they are drawn.
    """

    logits: np.ndarray
    key: np.ndarray
    recipe: Recipe

    def make(self, images: Array, view: int) -> jax.Array:
        """The images [S, H, W, C] in the view of that number, 0 to V - 1."""
        key = jax.random.wrap_key_data(jnp.asarray(self.key))
        _, height, width, _ = images.shape
        draws = draw(key, view, len(images), (height, width), self.recipe)
        return take(images, draws, jnp.arange(len(images)))


def draw(key, view, num_rows: int, image_size: tuple[int, int], recipe: Recipe) -> Draws:
    """Draws the numbers of one view.

    Args:
      key: typed key of all views.
      view: number of the view, may be traced.
      num_rows: S.
      image_size: (H, W).
      recipe: what is drawn.
    """
    keys = jax.random.split(jax.random.fold_in(key, view), 3)
    boxes = crops.draw_boxes(keys[0], num_rows, image_size, area=recipe.area, flip=recipe.flip)
    patches = None
    if recipe.cutmix:
        patches = crops.draw_patches(keys[1], num_rows, image_size, recipe.cutmix)
    partners = jax.random.permutation(keys[2], jnp.arange(num_rows, dtype=jnp.int32))
    return Draws(boxes=boxes, partners=partners, patches=patches)


def take(images, draws: Draws, rows):
    """Some images of a view.

    Args:
      images: floating [S, H, W, C], the whole set.
      draws: of that view.
      rows: int32 [B].

    Returns:
      [B, H, W, C], the same for a row whatever the others are.
    """
    images = jnp.asarray(images)

    def crop(which):
        return crops.resize_crop(images[which], jax.tree.map(lambda x: x[which], draws.boxes))

    own = crop(rows)
    if draws.patches is None:
        return own
    patches = jax.tree.map(lambda x: x[rows], draws.patches)
    return crops.mix_patches(own, crop(draws.partners[rows]), patches)
