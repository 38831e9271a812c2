"""Class-balanced kernel regression: the real images are predicted from the synthetic ones.

Zhou, Nezhadarya and Ba, "Dataset Distillation using Neural Feature Regression" (FRePo), NeurIPS
2022: ridge regression on the features of a pool of networks, which are being trained on the
synthetic set meanwhile, takes the place of training a network to its end. Ours are the
class-balanced real batches, the cross-entropy, the soft targets and labels, the two stages and
what protects rare classes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltdd_jax import training
from ltdd_jax.distill import initialize, method
from ltdd_jax.distill import kernel_step as steps
from ltdd_jax.types import SyntheticSet

_LIMITS = {"image_max": 1e3}  # whitened pixels are of order 1, and Adam's steps are bounded
_REMEDY = "lower --config.kernel.first.image_lr or --config.kernel.second.image_lr"
_BETAS = (0.9, 0.99)
_MAPS_PER_ROW = 6.7  # copies of the feature maps that a gradient keeps, as in `trajectory`
_AUGMENTED = 10  # copies of a batch's pictures while the derivative of the augmentation is taken
_GRADIENT_FORWARDS = 3


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds the method.

    Args:
      task: data and network; with `teacher_weight` above 0 also teachers.
      ipc: synthetic images per class.
      **settings: the fields of the config's section `kernel`; the stages are mappings.
    """
    labels = np.repeat(np.arange(task.num_classes, dtype=np.int32), ipc)
    stages = [steps.Stage(**settings[name]) for name in ("first", "second")]
    stages = [stage for stage in stages if stage.num_iterations > 0]
    size = max(stage.pool_size for stage in stages)
    rows = select_start(task, ipc)
    ask = functools.cache(lambda: method.ask_teachers(task.teachers("teacher"), task.images))
    image_tx = training.allow_counts(optax.scale_by_adam(*_BETAS))
    pool_tx = training.allow_counts(optax.adam(settings["pool_lr"]))

    def start():
        if settings["teacher_weight"] > 0:
            logits = ask()[rows]
        else:
            logits = settings["label_scale"] * np.eye(task.num_classes)[labels]
        return SyntheticSet(
            images=jnp.asarray(task.images[rows]),
            label_logits=jnp.asarray(steps.centre(logits).astype(np.float32)),
            step_size=jnp.float32(settings["step_size"]),
        )

    def init(key, synthetic):
        pool_key, key = jax.random.split(key)
        params = jax.vmap(task.network.init)(jax.random.split(pool_key, size))
        # Spread, so that the members start anew one after the other and the pool stays mixed.
        ages = jnp.arange(size, dtype=jnp.int32) * stages[0].pool_steps // size
        return steps.State(
            step=jnp.zeros((), jnp.int32),
            synthetic=synthetic,
            moments=image_tx.init((synthetic.images, synthetic.label_logits)),
            pool=steps.Pool(params, jax.vmap(pool_tx.init)(params), ages),
            key=key,
        )

    total = sum(stage.num_iterations for stage in stages)
    pool_rows = min(settings["pool_batch_size"], len(labels))
    return method.Method(
        start=start,
        init=init,
        step=steps.make_step(task, stages, labels, image_tx, pool_tx, settings),
        result=lambda state: state.synthetic,
        read=make_reader(task, rows, ask, settings),
        labels=labels,
        num_iterations=total,
        teachers=("teacher",) if settings["teacher_weight"] > 0 else (),
        limits=_LIMITS,
        remedy=_REMEDY,
        bytes=estimate_bytes(task, len(labels), pool_rows, size, settings["batch_size"]),
        image_copies=_AUGMENTED + method.IMAGE_COPIES,
        flops=estimate_flops(task, len(labels), pool_rows, settings["batch_size"]),
        summary=" + ".join(f"pool of {stage.pool_size}" for stage in stages)
        + f", {settings['loss'].replace('_', ' ')} of ridge regression",
    )


def select_start(task: method.Task, ipc: int) -> np.ndarray:
    """Rows of the real images that the synthetic ones start from, int64 [K·ipc], class-major."""
    of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
    return initialize.select_real(
        initialize.permute_classes(task.stream("initialize"), of_class), ipc
    )


def make_reader(
    task: method.Task,
    start_rows: np.ndarray,
    ask: Callable[[], np.ndarray],
    settings: Mapping[str, Any],
) -> Callable[[int], dict[str, np.ndarray]]:
    """`read(iteration)` -> a real batch: images, targets [B, K] that sum to 1, and labels [B].

    Args:
      task: the real images.
      start_rows: rows that the synthetic images start from; with `exclude_starts` they are left
        out, as what they predict best is themselves. A class that would have none left keeps all.
      ask: () -> logits of the teachers [N, K]; called where `teacher_weight` is above 0.
      settings: of the section.
    """
    seed = np.asarray(jax.random.key_data(task.stream("schedule"))).tolist()
    of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
    if settings["exclude_starts"]:
        others = [np.setdiff1d(rows, start_rows) for rows in of_class]
        of_class = [
            rest if len(rest) else rows for rest, rows in zip(others, of_class, strict=True)
        ]
    one_hot = np.eye(task.num_classes, dtype=np.float32)
    weight = np.float32(settings["teacher_weight"])

    def read(iteration):
        rng = np.random.default_rng([*seed, iteration])
        rows = draw_rows(rng, of_class, settings["batch_size"], settings["real_batch"])
        labels = task.labels[rows]
        targets = one_hot[labels]
        if weight > 0:
            logits = ask()[rows]
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            targets = (1 - weight) * targets + weight * shares
        return {"images": task.images[rows], "targets": targets, "labels": labels}

    return read


def draw_rows(
    rng: np.random.Generator, of_class: Sequence[np.ndarray], count: int, rule: str
) -> np.ndarray:
    """Rows of one real batch, int64 [count].

    Args:
      rng: numbers of this iteration.
      of_class: rows of each class, none empty.
      count: rows to draw.
      rule: "balanced" takes the classes in turn, so that their numbers differ by one at most, and
        repeats a row only when its class has no other; "natural" takes any rows, each at most
        once until there is no other.
    """
    if rule == "natural":
        return np.resize(rng.permutation(np.concatenate(of_class)), count)
    turns = -(-count // len(of_class))
    classes = np.concatenate([rng.permutation(len(of_class)) for _ in range(turns)])[:count]
    numbers = np.bincount(classes, minlength=len(of_class))
    return np.concatenate(
        [np.resize(rng.permutation(rows), n) for rows, n in zip(of_class, numbers, strict=True)]
    )


def estimate_bytes(task: method.Task, rows: int, pool_rows: int, pool: int, batch: int) -> int:
    """Memory of one iteration: the larger of its two gradients, the pool and the kernel."""
    sizes, pixels = task.network.sizes, int(np.prod(task.image_shape))
    maps = _MAPS_PER_ROW * max(rows, pool_rows) * sizes.sum_maps + 2 * batch * sizes.largest_map
    images = (_AUGMENTED + method.IMAGE_COPIES) * rows * pixels + batch * pixels
    return int(4 * (maps + images + 4 * pool * sizes.num_parameters + 4 * rows**2))


def estimate_flops(task: method.Task, rows: int, pool_rows: int, batch: int) -> float:
    """Of one iteration: features of the batch, two gradients, and the system of equations."""
    forwards = batch + _GRADIENT_FORWARDS * (rows + pool_rows)
    return float(forwards * task.network.sizes.flops + 2.0 * rows**3)
