"""What a method is: a value of pure functions that one loop can run, stop and resume."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ltdd_jax import training
from ltdd_jax.data import normalize
from ltdd_jax.nets import Network
from ltdd_jax.types import AugmentFn, Params, SyntheticSet

# Of a set while a step learns its images: themselves, momentum, gradient, its parts and updates.
IMAGE_COPIES = 6


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network that a method may ask.

    Attributes:
      network: it may carry statistics.
      params: all parameters, statistics included, on the host.
    """

    network: Network
    params: Params


def have_no_teachers(kind: str) -> tuple[Any, ...]:
    """The teachers of a task that has none, and their networks."""
    raise ValueError(f"there are no networks of the kind {kind}")


_BLOCK = 256  # images that a network sees at once
_PIXELS = normalize.Preprocessing(mean=np.zeros(1, np.float32), std=np.ones(1, np.float32))


@dataclasses.dataclass(frozen=True)
class Task:
    """What every method may use: the real data, the network and the trained experts.

    Attributes:
      network: student and expert.
      augment: (key, images) -> images, with random numbers of its own for every image.
      augment_siamese: the same operations with one set of numbers for all images of a call, so
        that equal keys transform real and synthetic images alike.
      images: float32 [N, H, W, C], network input of the training images, sorted by class.
      labels: int32 [N].
      class_counts: [K], every one at least 1.
      stream: name of a stage -> its root key.
      snapshot: (kind, expert, epoch) -> all parameters; epoch -1 is the last.
      num_experts: of each kind.
      input_range: (lowest, highest) network input, float32 [C] each, see `normalize.find_range`.
      teachers: "teacher" (labels, crops) or "observer" (statistics) -> the trained networks.
      networks: kind of teachers -> their networks, before they are trained too.
      preprocessing: pixels -> network input; left out where both are the same.
      map_pairs: (function, in_axes) -> function over a leading axis, spread over the devices.
    """

    network: Network
    augment: AugmentFn
    augment_siamese: AugmentFn
    images: Any  # an array, or what is read by rows from a disk
    labels: np.ndarray
    class_counts: tuple[int, ...]
    stream: Callable[[str], jax.Array]
    snapshot: Callable[[str, int, int], Params]
    num_experts: int
    input_range: tuple[np.ndarray, np.ndarray]
    teachers: Callable[[str], tuple[Teacher, ...]] = have_no_teachers
    networks: Callable[[str], tuple[Network, ...]] = have_no_teachers
    preprocessing: normalize.Preprocessing = _PIXELS
    map_pairs: Callable = training.vectorize

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_counts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make a synthetic set, for one task and fixed settings.

    Attributes:
      start: () -> the set before the first iteration; on the host, may read snapshots.
      init: (key, synthetic set) -> state; pure, so that `jax.eval_shape` gives the shape in which
        a checkpoint is read.
      step: (state, inputs, **constants) -> (state, metrics); pure. The metrics are float32 scalars
        and among them is "loss".
      result: state -> the set to keep.
      read: iteration -> inputs, a pytree of arrays; on the host, called ahead in a thread. Any
        iteration from 0 on may be asked for; those beyond the last are not used.
      labels: int32 [S], the class that each row of the set stands for.
      num_iterations: of the loop; 0 for a selection.
      experts: kinds of experts whose snapshots it reads.
      teachers: kinds of teachers that it asks.
      constants: () -> arrays by name that every step reads and none changes, such as the
        parameters of a teacher; on the host, asked for once.
      partition: f, where each image of the set holds f x f smaller pictures that students see.
      limits: metric -> magnitude above which the run has exploded.
      remedy: what to change when it has, as part of a sentence.
      bytes: estimate of the memory of one step.
      image_copies: of the images of the set, in float32, that `bytes` counts.
      flops: estimate of the multiplications and additions of one step.
      summary: what it does, for the plan.
    """

    start: Callable[[], SyntheticSet]
    init: Callable[[jax.Array, SyntheticSet], Any]
    step: Callable[[Any, Any], tuple[Any, dict[str, Any]]]
    result: Callable[[Any], SyntheticSet]
    read: Callable[[int], Any]
    labels: np.ndarray
    num_iterations: int
    experts: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    constants: Callable[[], Mapping[str, Any]] = dict
    partition: int = 1
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    remedy: str = ""
    bytes: int = 0
    image_copies: int = IMAGE_COPIES
    flops: float = 0.0
    summary: str = ""


def fixed(start: Callable[[], SyntheticSet], labels: np.ndarray, **more: Any) -> Method:
    """A method without iterations: the result is what it starts with."""
    return Method(
        start=start,
        init=lambda key, synthetic: synthetic,
        step=lambda state, inputs: (state, {"loss": jax.numpy.zeros(())}),
        result=lambda state: state,
        read=lambda iteration: {},
        labels=labels,
        num_iterations=0,
        **more,
    )


def predict_in_blocks(
    apply: Callable, params: Params, images: np.ndarray, block: int = _BLOCK
) -> np.ndarray:
    """`apply(params, images)` in blocks of one shape, so that one program serves all.

    Args:
      apply: jitted (params, images [block, H, W, C]) -> outputs with a leading axis.
      params: parameters.
      images: [N, H, W, C], N at least 1; read block by block.
      block: images per call; the last call is padded.

    Returns:
      NumPy array [N, ...].
    """
    parts = []
    for begin in range(0, len(images), block):
        rows = images[begin : begin + block]
        padding = np.repeat(rows[-1:], block - len(rows), axis=0)
        parts.append(apply(params, np.concatenate([rows, padding])))
    return np.concatenate([np.asarray(part) for part in parts])[: len(images)]


def ask_teachers(asked: Sequence[Teacher], images: Any) -> np.ndarray:
    """Mean logits float32 [S, K] of the teachers on images [S, H, W, C], in memory or on disk."""
    block = min(_BLOCK, len(images))
    each = [
        predict_in_blocks(jax.jit(one.network.apply), one.params, images, block) for one in asked
    ]
    return np.asarray(np.mean(each, axis=0, dtype=np.float64), np.float32)
