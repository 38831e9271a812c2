"""What an evaluation compares, as values: each row is a data set, a rate and a length."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ltdd_jax import losses
from ltdd_jax.data import streamed
from ltdd_jax.evaluate import baselines
from ltdd_jax.pipeline import artefacts, claims
from ltdd_jax.pipeline.artefacts import LabelledSet
from ltdd_jax.pipeline.run import Run
from ltdd_jax.presets import PRESETS
from ltdd_jax.runtime import prng

# Images [N, H, W, C] and label logits [N, K], or both [E, N, ...]; arrays, or of a set on disk what
# a program takes rows of.
Data = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One data set to train fresh networks on.

    Attributes:
      name: key of the row in files and in the report; random numbers depend on it.
      title: in the report.
      made_of: what the data are, for the identity of the result.
      num_rows: N, images that a network sees.
      num_stored: images that are kept, where these hold several pictures each; 0 is N.
      num_epochs: nominal number E of the protocol.
      load: (number of networks) -> data; [E, N, ...] where `per_network`.
      per_network: whether every network has its own data.
      rate: learning rate; None if it is to be chosen.
      rate_of: name of the row whose chosen rate is used, where `rate` is None.
      load_kept: (positions of the training images that are kept, number of networks) -> the same
        data made of those alone, while rates are compared; None for a set that stays as it is.
      is_shared: whether the row is the same for every distilled set of a directory.
    """

    name: str
    title: str
    made_of: str
    num_rows: int
    num_epochs: int
    load: Callable[[int], Data]
    per_network: bool
    rate: float | None = None
    rate_of: str = ""
    load_kept: Callable[[np.ndarray, int], Data] | None = None
    is_shared: bool = False
    num_stored: int = 0

    def key(self, seed: int) -> jax.Array:
        """Root of the random numbers of this row: from its name, not from its place."""
        root = prng.stream_key(seed, "evaluate")
        return jax.random.fold_in(root, zlib.crc32(self.name.encode()))


def make_rows(run: Run) -> list[Row]:
    """The distilled set and what it is compared with, in the order of the report.

    Raises:
      UserError: the set is missing, damaged or of other data.
    """
    final = artefacts.read_set(run, artefacts.FINAL)
    epochs = run.config.evaluation.num_epochs
    record = claims.read_set_record(run.workspace)
    method = record["config"]["distill"]["method"] if record else run.config.distill.method
    preset = PRESETS[method]
    title = f"distilled set ({preset.title})"
    if preset.section == "selection":  # real images, so the rate is chosen as for real images
        chosen = _set_row("distilled", preset.title, final, epochs, rate=None)
        rows = [dataclasses.replace(chosen, load_kept=lambda kept, count: chosen.load(count))]
        return [*rows, *_baselines(run, final)]
    rate = float(final.synthetic.step_size)
    rows = [_set_row("distilled", title, final, epochs, rate=rate)]
    initial = artefacts.read_set(run, artefacts.INITIAL)
    start = "the set before the first iteration"
    rows.append(_set_row("initial", start, initial, epochs, rate=rate))
    rows.append(
        _set_row("initial_at_baseline_rate", f"{start}, at the rate of the random real images",
                 initial, epochs, rate_of="random_real")
    )  # fmt: skip
    if run.config.evaluation.curve:
        for iteration in artefacts.list_kept(run):
            kept = artefacts.read_set(run, artefacts.name_kept(iteration))
            rate = float(kept.synthetic.step_size)
            name = artefacts.name_kept(iteration)
            rows.append(_set_row(name, f"after {iteration} iterations", kept, epochs, rate=rate))
    return [*rows, *_baselines(run, final)]


def _set_row(name, title, found: LabelledSet, epochs, *, rate=None, rate_of=""):
    def load(count):
        return tuple(np.broadcast_to(x, (count, *x.shape)) for x in found.show())

    return Row(
        name=name,
        title=title,
        made_of=found.checksum(),
        num_rows=found.num_seen,
        num_stored=len(found.labels),
        num_epochs=epochs,
        load=load,
        # Also where all have the same: then sets and random images share one program.
        per_network=True,
        rate=rate,
        rate_of=rate_of,
    )


def _baselines(run: Run, final: LabelledSet) -> list[Row]:
    """Random real images of the same number, and all of them."""
    settings, problem = run.config.evaluation, run.problem
    labels, num_classes = problem.train.labels, problem.num_classes
    numbers = np.bincount(final.labels, minlength=num_classes)
    shown = "same number" if len(set(numbers)) == 1 else f"{numbers.max()} per class"
    ipc = int(numbers.max())

    def real(rows):
        return problem.train_images[rows], losses.hard_label_logits(labels[rows], num_classes)

    def random_real(kept, count):
        root = prng.stream_key(run.config.seed, "baseline")
        rows = [
            baselines.draw_random_subset(
                jax.random.fold_in(root, seed), labels[kept], num_classes, ipc
            )
            for seed in range(count)
        ]
        return real(kept[np.stack(rows)])

    def all_real(rows):
        if isinstance(problem.train_images, np.ndarray):
            return real(rows)
        images = problem.train.images.take(rows)
        table = losses.hard_label_logits(np.arange(num_classes), num_classes)
        return (
            streamed.StreamedImages(problem.preprocessing, images),
            streamed.LabelRows(table, labels[rows]),
        )

    everything = np.arange(len(labels))
    full_epochs = settings.full_num_epochs or settings.num_epochs
    return [
        Row(
            name="random_real",
            title=f"random real images ({shown})",
            made_of=f"{problem.fingerprint} {ipc} per class",
            num_rows=ipc * num_classes,
            num_epochs=settings.num_epochs,
            load=lambda count: random_real(everything, count),
            per_network=True,
            load_kept=random_real,
            is_shared=True,
        ),
        Row(
            name="full_real",
            title=f"whole training set, {full_epochs + 1} epochs",
            made_of=problem.fingerprint,
            num_rows=len(labels),
            num_epochs=full_epochs,
            load=lambda count: all_real(everything),
            per_network=False,
            load_kept=lambda kept, count: all_real(np.resize(kept, len(labels))),
            is_shared=True,
        ),
    ]


def order_for_rates(rows: Sequence[Row]) -> list[Row]:
    """The rows in an order in which every rate is known before it is used."""
    return sorted(rows, key=lambda row: bool(row.rate_of))
