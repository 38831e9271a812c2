"""Tables that never ran: cells of CIFAR-10-LT with the reports they might have left."""

import json
import pathlib

from ltdd_jax.pipeline.cost import Cost
from ltdd_jax.table import Cell, Table
from ltdd_jax.table.cells import Job, make_jobs

NARROW = {"net.width": 64, "experts.num_experts": 10, "experts.representation.num_epochs": 80}


def make_table(*methods: str, argument: str = "if100_ipc10", **more) -> Table:
    """A cell for each method."""
    cells = (
        Cell("cifar10_lt", method, argument=argument, name=method, **more) for method in methods
    )
    return Table("A table", tuple(cells), "a_table")


def make_all(*methods: str, **more) -> list[Job]:
    """The jobs of `make_table`."""
    return make_jobs(make_table(*methods, **more), pathlib.Path())


def make_summary(mean: float, **more) -> dict:
    """What a report says of a row."""
    return {
        "mean": mean, "std": 0.5, "balanced": mean, "many": mean + 10, "medium": mean - 10,
        "per_seed": [mean - 0.5, mean + 0.5], "title": "a row", "rate": 0.01, "updates": 1001,
        "images": 100,
    } | more  # fmt: skip


def make_report(mean: float, random: float = 30.0, **more) -> dict:
    """A report with a distilled set, random images and the whole training set."""
    results = {
        "distilled": make_summary(mean),
        "initial": make_summary(mean - 5),
        "random_real": make_summary(random),
        "full_real": make_summary(80.0, images=12406),
    }
    return {
        "results": results | more,
        "experts": {"representation": {}},
        "train_counts": [100] * 10,
    }


class Runner:
    """Stands for the pipeline: leaves reports, and fails or stops where it is told to.

    Args:
      book: of the table.
      failures: cell -> exception that is raised once.
    """

    def __init__(self, book, **failures: BaseException):
        self._book, self._failures = book, failures
        self.ran: list[str] = []

    def __call__(self, job: Job, workdir: str) -> None:
        self.ran.append(job.name)
        assert workdir == str(self._book.root / job.directory)
        if job.name in self._failures:
            raise self._failures.pop(job.name)
        path = self._book.find_report(job)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(make_report(50.0)))


def make_cost(own: float, *shared: str, there: tuple[str, ...] = (), each: float = 1e12) -> Cost:
    """Work in FLOP; everything shared costs `each`."""
    return Cost(own=own, shared=dict.fromkeys(shared, each), there=frozenset(there))
