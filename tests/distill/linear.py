"""A network without hidden layers, whose derivatives fit in a line; and tasks that have it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.distill import tasks


def make_task(class_counts, *, side=4, features=None, augmented=False, fresh=False, **fields):
    """A task on noise with softmax regression.

    Args:
      class_counts: images of each class.
      side: pixels of a row, one channel.
      features: of the embedding; without it the embedding is the image.
      augmented: whether the Siamese augmentation does anything.
      fresh: whether every `init` gives other weights; without it always those that are returned.
      **fields: of the task, in place of what is there.

    Returns:
      The task, its kernel [F, K] and the matrix of its embedding [pixels, F].
    """
    rng = np.random.default_rng(7)
    pixels, num_classes = side**2, len(class_counts)
    matrix = np.eye(pixels) if features is None else rng.normal(size=(pixels, features))
    kernel = 0.3 * rng.normal(size=(matrix.shape[1], num_classes))
    params = {"classifier": {"bias": np.zeros(num_classes), "kernel": kernel}}
    params = {"classifier": {k: v.astype(np.float32) for k, v in params["classifier"].items()}}

    def init(key):
        values = {k: jnp.asarray(v) for k, v in params["classifier"].items()}
        if fresh:
            values["kernel"] = jax.random.normal(key, kernel.shape)
        return {"classifier": values}

    def embed(params, images):
        return images.reshape(len(images), -1) @ jnp.asarray(matrix, jnp.float32)

    def classify(params, features):
        return features @ params["classifier"]["kernel"] + params["classifier"]["bias"][None]

    def apply(params, images):
        return classify(params, embed(params, images))

    task = tasks.make_task(side=side, width=1, class_counts=class_counts)
    network = dataclasses.replace(
        task.network,
        init=init,
        embed=embed,
        classify=classify,
        apply=apply,
        train=lambda params, images, weights=None: (apply(params, images), params),
    )
    keep = {} if augmented else {"augment_siamese": lambda key, images: images}
    fields = keep | {"augment": lambda key, images: images} | fields
    return dataclasses.replace(task, network=network, **fields), kernel, matrix


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def differentiate(function, images, step=1e-5):
    """The gradient of a function of float64 images by central differences."""
    images = np.asarray(images, np.float64)
    gradient = np.zeros_like(images)
    for place in np.ndindex(*images.shape):
        moved = images.copy()
        moved[place] += step
        above = function(moved)
        moved[place] -= 2 * step
        gradient[place] = (above - function(moved)) / (2 * step)
    return gradient
