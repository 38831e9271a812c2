"""Crops of real pictures that a teacher recognises: RDED, and what other methods start from.

RDED (Sun et al., CVPR 2024) cuts 5 random crops of each of 300 pictures per class, keeps the best
of each picture, then the best of these. RLDD (Cui et al., AAAI 2026) goes on in rounds where a
class has fewer pictures than are wanted; with enough of them both are the same.

Crops are cut from the pictures' pixels, rounded to 8 bits and preprocessed like any picture, so
that each is a picture by itself. Cut from whitened input, which is what augmentations do, they
would leave the range of pixels and lose the whitening of fine detail.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses
from ltdd_jax.data import crops, normalize
from ltdd_jax.distill import initialize, method
from ltdd_jax.types import SyntheticSet

_BLOCK = 256  # crops per call


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds RDED.

    Args:
      task: data and teachers.
      ipc: images per class.
      **settings: the fields of the config's section `crops`.
    """
    labels = np.repeat(np.arange(task.num_classes, dtype=np.int32), ipc)

    def start():
        return SyntheticSet(
            images=jnp.asarray(choose_images(task, ipc, **_select(settings))),
            label_logits=jnp.asarray(losses.hard_label_logits(labels, task.num_classes)),
            step_size=np.float32(settings["step_size"]),
        )

    return method.fixed(
        start,
        labels,
        teachers=("teacher",),
        summary=f"{settings['crops_per_image']} crops per picture, those the teacher knows best",
    )


def _select(settings):
    names = ("images_per_class", "crops_per_image", "min_area", "max_area")
    return {name: settings[name] for name in names}


def choose_images(
    task: method.Task,
    ipc: int,
    *,
    images_per_class: int,
    crops_per_image: int,
    min_area: float,
    max_area: float,
) -> np.ndarray:
    """The most confident crops of every class as network input.

    Args:
      task: data and teachers.
      ipc: crops per class.
      images_per_class: random pictures of each class that are looked at; 0 is all.
      crops_per_image: random crops of each.
      min_area, max_area: share of the picture that a crop covers, in (0, 1].

    Returns:
      float32 [K·ipc, H, W, C], class-major; the best crops come first in a class.
    """
    order_key, box_key = jax.random.split(task.stream("initialize"))
    of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
    orders = initialize.permute_classes(order_key, of_class)
    looked_at = [order[: images_per_class or None] for order in orders]
    rows = np.concatenate(looked_at)
    boxes = crops.draw_boxes(
        box_key,
        len(rows) * crops_per_image,
        task.image_shape[:2],
        area=(min_area, max_area),
        flip=False,
    )
    boxes = jax.tree.map(np.asarray, boxes)
    scores = score_crops(task, np.repeat(rows, crops_per_image), boxes)
    scores = scores.reshape(len(rows), crops_per_image)
    ends = np.cumsum([len(of) for of in looked_at])
    chosen = []
    for begin, end in zip([0, *ends], ends, strict=False):
        picked = choose_in_rounds(scores[begin:end], ipc)
        chosen.append(np.resize(picked, (ipc, 2)) + np.array([begin, 0]))
    image, crop = np.concatenate(chosen).T
    places = image * crops_per_image + crop
    found = _in_blocks(jax.jit(cut_pixels), task, rows[image], _take(boxes, places))
    return normalize.apply(task.preprocessing, found)


def choose_in_rounds(scores: np.ndarray, count: int) -> np.ndarray:
    """Which crops of which images are kept, in rounds (arXiv 2511.18858).

    In every round each image offers its best crop that is not used; if there are more offers than
    free places the best are kept.

    Args:
      scores: [n, m], cross-entropy of crop m of image n; low is good.
      count: crops wanted, at least 1.

    Returns:
      int64 [min(count, n·m), 2], (image, crop), best first in each round; ties go to the first
      image, or crop.
    """
    order = np.argsort(scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    chosen: list[np.ndarray] = []
    for crop, offers in zip(order.T, ranked.T, strict=True):
        free = count - len(chosen)
        best = np.argsort(offers, kind="stable")[: max(free, 0)]
        chosen.extend(np.stack([best, crop[best]], axis=1))
    return np.array(chosen, np.int64)


def cut_pixels(pixels: jax.Array, boxes: crops.Boxes) -> jax.Array:
    """Crops of pictures uint8 [B, H, W, C] at their full size, of the same kind."""
    cut = crops.resize_crop(pixels.astype(jnp.float32), boxes)
    return jnp.clip(jnp.rint(cut), 0, 255).astype(jnp.uint8)


def score_crops(task: method.Task, rows: np.ndarray, boxes: crops.Boxes) -> np.ndarray:
    """Cross-entropy of the teachers' predictions, the mean over the teachers.

    Args:
      task: images, labels, teachers and preprocessing.
      rows: int [n] of the task's images.
      boxes: n boxes.

    Returns:
      float32 [n].
    """
    teachers = task.teachers("teacher")

    @jax.jit
    def score(preprocessing, params, pixels, boxes, labels):
        images = normalize.prepare(preprocessing, cut_pixels(pixels, boxes))
        values = [
            losses.cross_entropy(teacher.network.apply(own, images), labels)
            for teacher, own in zip(teachers, params, strict=True)
        ]
        return sum(values) / len(values)

    params = tuple(teacher.params for teacher in teachers)
    call = functools.partial(score, *jax.device_put((task.preprocessing, params)))
    return _in_blocks(call, task, rows, boxes, task.labels)


def _in_blocks(call: Callable, task, rows, boxes, *more: np.ndarray) -> np.ndarray:
    """`call(pixels, boxes, more[rows] ...)` in blocks of one shape; the last repeats rows."""
    parts = []
    for begin in range(0, len(rows), _BLOCK):
        places = np.resize(np.arange(begin, min(begin + _BLOCK, len(rows))), _BLOCK)
        own = rows[places]
        read, inverse = np.unique(own, return_inverse=True)
        pixels = normalize.invert(task.preprocessing, task.images[read])[inverse]
        parts.append(np.asarray(call(pixels, _take(boxes, places), *(x[own] for x in more))))
    return np.concatenate(parts)[: len(rows)]


def _take(boxes, places):
    return jax.tree.map(lambda x: x[places], boxes)
