"""What the methods without trajectories have in common: hard labels, SGD on the images alone."""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses
from ltdd_jax.data import mosaic
from ltdd_jax.distill import initialize
from ltdd_jax.distill.method import IMAGE_COPIES, Task
from ltdd_jax.types import SyntheticSet

LIMITS = {"image_max": 1e6}  # network input is of order 1


@flax.struct.dataclass
class ImageState:
    """State of a method that learns the images and keeps nothing else.

    Attributes:
      step: int32 scalar, iterations done.
      synthetic: the set; labels and step size never change.
      velocity: float32 [S, H, W, C], momentum of the images.
      key: typed key; iteration i uses fold_in(key, i).
    """

    step: jax.Array
    synthetic: SyntheticSet
    velocity: jax.Array
    key: jax.Array


def init_fields(key: jax.Array, synthetic: SyntheticSet) -> dict:
    """Fields of an `ImageState`, or of a state that has more, before the first iteration."""
    return {
        "step": jnp.zeros((), jnp.int32),
        "synthetic": synthetic,
        "velocity": jnp.zeros_like(synthetic.images),
        "key": key,
    }


def make_start(
    task: Task, ipc: int, kind: str, step_size: float, partition: int = 1
) -> SyntheticSet:
    """The set before the first iteration, with hard labels; on the host.

    Args:
      task: the real data.
      ipc: images per class.
      kind: "real" (R_c(ipc), repeated cyclically where a class has fewer) or "noise", N(0, 1).
      step_size: learning rate that the set is evaluated with.
      partition: f; every cell of an image is a draw of its own, made smaller bilinearly, which
        also takes noise nearer to 0.
    """
    key, noise_key = jax.random.split(task.stream("initialize"))
    labels = np.repeat(np.arange(task.num_classes), ipc)
    if kind == "noise":
        rows = np.full((partition**2, len(labels)), initialize.NOISE)
    else:
        of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
        rows = np.stack(
            [
                initialize.select_real(initialize.permute_classes(one, of_class), ipc)
                for one in jax.random.split(key, partition**2)
            ]
        )
    images = initialize.fill_images(noise_key, rows.reshape(-1), task.images)
    images = mosaic.pack(images, partition)
    return make_hard_set(images, labels, task.num_classes, step_size)


def make_hard_set(
    images: np.ndarray, labels: np.ndarray, num_classes: int, step_size: float
) -> SyntheticSet:
    """Images with the class as their label."""
    return SyntheticSet(
        images=jnp.asarray(images),
        label_logits=jnp.asarray(losses.hard_label_logits(labels, num_classes)),
        step_size=jnp.float32(step_size),
    )


def descend(
    state: ImageState, gradient: jax.Array, *, rate: float, momentum: float
) -> tuple[SyntheticSet, jax.Array]:
    """One step v ← μv + g, X ← X - lr·v: the new set and the new v."""
    velocity = momentum * state.velocity + gradient
    images = state.synthetic.images - rate * velocity
    return dataclasses.replace(state.synthetic, images=images), velocity


def map_classes(loss: Callable, images: jax.Array, *inputs) -> tuple[jax.Array, jax.Array]:
    """Σ_c loss(X_c, ...) and its gradient, one class after the other, so that memory is of one.

    Args:
      loss: (images of a class [ipc, H, W, C], class, inputs of the class) -> scalar that depends
        on no other class.
      images: [K·ipc, H, W, C], class-major.
      *inputs: pytrees with a leading axis K.

    Returns:
      The sum, and the gradient [K·ipc, H, W, C].
    """
    num_classes = len(jax.tree.leaves(inputs)[0])
    own = images.reshape(num_classes, -1, *images.shape[1:])
    gradient = jax.value_and_grad(loss)
    values, grads = jax.lax.map(lambda x: gradient(*x), (own, jnp.arange(num_classes), *inputs))
    return values.sum(), grads.reshape(images.shape)


def descend_in_turn(
    loss: Callable, state: ImageState, *inputs, rate: float, momentum: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One optimiser step per class on all images: the shared momentum goes on moving the others.

    Args:
      loss: as for `map_classes`.
      state: its images and velocity are where the steps begin.
      *inputs: pytrees with a leading axis K.
      rate: learning rate.
      momentum: of heavy-ball SGD.

    Returns:
      The sum of the losses, each before its step; images and velocity [K·ipc, H, W, C].
    """
    num_classes = len(jax.tree.leaves(inputs)[0])
    images = jnp.asarray(state.synthetic.images)
    shape = (num_classes, -1, *images.shape[1:])

    def body(carry, arguments):
        images, velocity = carry
        label, rest = arguments
        value, gradient = jax.value_and_grad(loss)(images[label], label, *rest)
        velocity = (momentum * velocity).at[label].add(gradient)
        return (images - rate * velocity, velocity), value

    start = images.reshape(shape), state.velocity.reshape(shape)
    (moved, velocity), values = jax.lax.scan(body, start, (jnp.arange(num_classes), inputs))
    return values.sum(), moved.reshape(images.shape), velocity.reshape(images.shape)


def measure(loss: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """The metrics of an iteration."""
    return {"loss": loss, "image_max": jnp.abs(images).max()}


def estimate_bytes(task: Task, rows: int, ipc: int) -> int:
    """Memory of a step that differentiates through `rows` images, beside data and set."""
    sizes, pixels = task.network.sizes, int(np.prod(task.image_shape))
    images = IMAGE_COPIES * 4 * ipc * task.num_classes * pixels
    held = task.images.nbytes if isinstance(task.images, np.ndarray) else 0  # or on disk
    return sizes.training_bytes(rows) + images + held
