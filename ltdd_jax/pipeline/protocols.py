"""How the networks of a row are trained: the protocol of its block, from the config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ltdd_jax.data import augment, views
from ltdd_jax.evaluate import student
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.nets import Network
from ltdd_jax.pipeline import problem as problem_of
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import mesh

# Rates that are compared on held-out images.
GRIDS = {"i": "evaluation.baseline_rates", "ii": "student.learning_rates"}
_OF_BLOCK = {"i": ("num_seeds", "batch_size", "momentum", "weight_decay"), "ii": ("num_seeds",)}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What trains the networks of rows of one shape.

    Attributes:
      evaluator: functions over E networks.
      num_epochs: all epochs.
      schedule: learning rate -> float32 [num_epochs].
      has_shared: whether the data are a pair (what each network has, what all of them share).
    """

    evaluator: evaluation.Evaluator
    num_epochs: int
    schedule: Callable[[float], np.ndarray]
    has_shared: bool


def list_fields(block: str, *, rate_is_given: bool) -> list[str]:
    """Dotted fields that decide the result of a row of that block."""
    made_by = ["seed", "data", "net", "augment", "runtime.precision"]
    made_by += [f"evaluation.{name}" for name in _OF_BLOCK[block]]
    if block == "ii":
        names = [f.name for f in dataclasses.fields(student.Protocol) if f.name != "recipe"]
        made_by += [f"student.{name}" for name in (*names, "area", "flip", "cutmix")]
    if not rate_is_given:
        made_by += [GRIDS[block], "evaluation.held_out", "evaluation.tuning_epochs"]
    return made_by


def list_rates(run: Run, block: str) -> list[float]:
    """The rates that are compared on held-out images."""
    section = run.config.student.learning_rates if block == "ii" else None
    return [float(x) for x in section or run.config.evaluation.baseline_rates]


def count_epochs(block: str, num_epochs: int) -> int:
    """All epochs for the nominal number of a row: block (i) counts from 0 to it inclusive."""
    return num_epochs + 1 if block == "i" else num_epochs


def choose_batch_size(run: Run, block: str) -> int:
    """Images per step."""
    return run.config.student.batch_size if block == "ii" else run.config.evaluation.batch_size


def find_network(run: Run, name: str) -> Network:
    """The network of the config, or the one called `name`.

    Raises:
      UserError: it does not fit the images.
    """
    if not name:
        return run.problem.network
    return problem_of.make_network(run.config, run.problem.train, name)


def make_recipe(run: Run) -> views.Recipe:
    """How the views of block (ii) are drawn."""
    settings = run.config.student
    low, high = settings.area
    mirrors = "flip" in augment.parse_strategy(run.config.augment.strategy)
    return views.Recipe(
        area=(float(low), float(high)),
        flip=mirrors if settings.flip == "auto" else settings.flip == "on",
        cutmix=settings.cutmix,
    )


def describe_augmentation(run: Run, block: str) -> str:
    """What is done to the images of every batch, in words."""
    if block == "ii":
        return make_recipe(run).describe()
    strategy = run.config.augment.strategy
    return f"DSA ({strategy})" if strategy else "none"


def make_common(
    run: Run,
    devices: Any,
    *,
    num_rows: int,
    num_epochs: int,
    per_network: bool,
    network: str = "",
    optimizer: str = "sgd",
) -> Protocol:
    """The protocol of block (i): that of trajectory matching.

    Args:
      run: its section `evaluation` says how.
      devices: over which the networks are spread.
      num_rows: images of the training set.
      num_epochs: nominal number.
      per_network: whether every network has data of its own.
      network: another network than that of the config.
      optimizer: "sgd" or "adam".
    """
    settings, adam = run.config.evaluation, optimizer == "adam"
    own = find_network(run, network)
    schedule = evaluation.warm_up_rates if adam else evaluation.learning_rates
    evaluator = evaluation.make_evaluator(
        own,
        run.problem.augment,
        num_rows=num_rows,
        num_epochs=num_epochs,
        batch_size=settings.batch_size,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        data_per_network=per_network,
        adam=adam,
        lanes=mesh.choose_lanes(min(settings.batch_size, num_rows) * own.sizes.largest_map),
        spread=lambda function, axes: mesh.spread(function, axes, devices),
    )
    return Protocol(
        evaluator=evaluator,
        num_epochs=count_epochs("i", num_epochs),
        schedule=lambda rate: schedule(rate, num_epochs),
        has_shared=False,
    )


def make_taught(
    run: Run,
    devices: Any,
    teachers: tuple[Network, ...],
    *,
    num_rows: int,
    num_epochs: int,
    num_views: int,
) -> Protocol:
    """The protocol of block (ii): students of a teacher.

    Args:
      run: its section `student` says how.
      devices: over which the networks are spread.
      teachers: networks that are asked live.
      num_rows: images of the training set.
      num_epochs: of the students.
      num_views: stored views; 0 asks the teachers live.
    """
    settings = run.config.student
    names = {f.name for f in dataclasses.fields(student.Protocol)}
    fields = {k: v for k, v in settings.to_dict().items() if k in names}
    protocol = student.Protocol(**fields | {"num_epochs": num_epochs, "recipe": make_recipe(run)})
    evaluator = student.make_student(
        run.problem.network,
        teachers,
        protocol,
        num_rows=num_rows,
        num_views=num_views,
        lanes=mesh.choose_lanes(
            min(settings.batch_size, num_rows) * run.problem.network.sizes.largest_map
        ),
        spread=lambda function, axes: mesh.spread(function, axes, devices),
    )
    return Protocol(
        evaluator=evaluator,
        num_epochs=num_epochs,
        schedule=lambda rate: student.learning_rates(protocol, rate),
        has_shared=True,
    )
