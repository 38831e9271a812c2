"""Observers: trained networks, which of their layers are watched, and what those should show."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ltdd_jax.distill import method, statistics, statistics_loss
from ltdd_jax.nets import Network
from ltdd_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Observer:
    """A network and what of it is watched.

    Attributes:
      network: trained or not.
      layers: names of the layers that are watched, in the order of the network.
      with_patches: those of them whose patches are watched too.
    """

    network: Network
    layers: tuple[str, ...]
    with_patches: tuple[str, ...]

    def observe(self, params, images):
        """Logits, and what enters the layers that are watched."""
        logits, inputs = self.network.observe(params, images)
        return logits, {name: inputs[name] for name in self.layers}


def make_observers(networks: Sequence[Network], layers: str) -> tuple[Observer, ...]:
    """What is watched of each network; `layers` is "norm" or "all", with the convolutions.

    Raises:
      UserError: a network has none of these layers.
    """
    found = []
    for network in networks:
        kinds = network.observed
        watched = tuple(name for name, kind in kinds.items() if layers == "all" or kind == "norm")
        if not watched:
            raise UserError(
                "--config.observer.nets names a network without a layer whose statistics "
                f"--config.recovery.layers={layers} follows; use one such as resnet18_bn"
            )
        patched = tuple(name for name in watched if kinds[name] == "conv")
        found.append(Observer(network=network, layers=watched, with_patches=patched))
    return tuple(found)


def make_constants(
    task: method.Task, observers: tuple[Observer, ...], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What a step reads and none changes: parameters and targets of every observer.

    The targets take one pass over the real images, except where running statistics are all that
    is asked for.
    """
    params = tuple(teacher.params for teacher in task.teachers("observer"))
    return {
        "params": params,
        "targets": tuple(
            _find_targets(task, observer, own, settings)
            for observer, own in zip(observers, params, strict=True)
        ),
        "preprocessing": task.preprocessing,
    }


def _find_targets(task, observer, params, settings):
    if settings["targets"] == "running" and not settings["class_weight"]:
        running = {name: find_running(params, name) for name in observer.layers}
        if not observer.with_patches and None not in running.values():
            return {
                name: statistics_loss.Target(overall=moments, classes=None)
                for name, moments in running.items()
            }

    @jax.jit
    def measure(params, images):
        _, inputs = observer.observe(params, images)
        return statistics.measure_images(inputs, observer.with_patches)

    classes = statistics.measure_classes(
        functools.partial(measure, jax.device_put(params)),
        task.images,
        task.labels,
        task.num_classes,
        pooled=settings["class_statistics"] == "pooled",
    )
    return make_targets(
        classes,
        params,
        task.class_counts,
        balanced=settings["targets"] == "balanced",
        mixture=settings["variances"] == "mixture",
    )


def make_targets(
    classes: Mapping[str, statistics.Moments],
    params: Mapping[str, Any],
    class_counts: tuple[int, ...],
    *,
    balanced: bool,
    mixture: bool,
) -> dict[str, statistics_loss.Target]:
    """What the statistics of every layer are pulled to; name -> Target.

    Args:
      classes: statistics of each class, Moments [K, D].
      params: of the observer, with running statistics if it has any.
      class_counts: [K].
      balanced: the uniform mean over the classes, so that frequent classes do not decide (RLDD's
        recalibration, for all layers). Else a batch norm has its running statistics, and every
        other layer those of the training images as they are (EDC).
      mixture: how variances of classes are joined, see `statistics.join_classes`.
    """
    counts = np.asarray(class_counts, np.float32)
    shares = np.full_like(counts, 1 / len(counts)) if balanced else counts / counts.sum()
    found = {}
    for name, moments in classes.items():
        overall = None if balanced else find_running(params, name)
        if overall is None:
            overall = statistics.join_classes(moments, shares, mixture=mixture)
        found[name] = statistics_loss.Target(overall=overall, classes=moments)
    return found


def find_running(params: Mapping[str, Any], name: str) -> statistics.Moments | None:
    """Running statistics of the layer called `name`; None where it keeps none."""
    node = params.get("statistics", {})
    for part in name.split("/"):
        node = node.get(part, {})
    return statistics.Moments(node["mean"], node["variance"]) if "mean" in node else None
