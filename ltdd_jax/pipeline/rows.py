"""What an evaluation compares, as values: each row is a data set, a rate and a length."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special

from ltdd_jax import config as configs
from ltdd_jax import losses
from ltdd_jax.data import mosaic, normalize, streamed
from ltdd_jax.evaluate import baselines
from ltdd_jax.nets import Network
from ltdd_jax.pipeline import artefacts, claims, protocols
from ltdd_jax.pipeline import labels as labels_of
from ltdd_jax.pipeline.artefacts import LabelledSet
from ltdd_jax.pipeline.run import Run
from ltdd_jax.presets import PRESETS, Preset
from ltdd_jax.runtime import prng
from ltdd_jax.types import Array, UserError

# Block (i): images [N, H, W, C] and label logits [N, K], or both [E, N, ...]; arrays, or of a set
# on disk what a program takes rows of. Block (ii): a Lesson with a leading axis E and the Teaching
# that all networks share, of `evaluate.student`.
Data = tuple[Any, Any]
RANDOM = "random real images (same number)"
SECOND = "ii_"  # before the names of rows of block (ii)
_SURE = 1e-6  # what a hard label may give to the other classes
_SAMPLE = 100  # images that tell whether a set is of 8-bit pixels, evenly spaced
_STEP_SIZES = ("initial_step_size", "step_size")  # as families call it; the first is learned on
_ALIKE = 1e-3  # of their standard deviation; rounding moves some pixel by eight times that


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
      rate_field: dotted field that the rate comes from; "" where the method alone decides it.
      load_kept: (positions of the training images that are kept, number of networks) -> the same
        data made of those alone, while rates are compared; None for a set that stays as it is.
      is_shared: whether the row is the same for every distilled set of a directory.
      block: "i" or "ii"; the two are never compared.
      regime: of the labels: H (a class), S1 (one soft vector per image), SE (one for each stored
        view of it) or ST (a teacher that is asked for every view).
      stored_bytes: of "images", "labels" and "teacher".
      num_views: stored views of each image.
      find_teachers: () -> networks that are asked live.
      network: another network than that of the config, in its published size.
      protocol: of block (i), "sgd" or "adam".
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
    rate_field: str = protocols.GRIDS["i"]
    load_kept: Callable[[np.ndarray, int], Data] | None = None
    is_shared: bool = False
    num_stored: int = 0
    block: str = "i"
    regime: str = "H"
    stored_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_views: int = 0
    find_teachers: Callable[[], tuple[Network, ...]] = tuple
    network: str = ""
    protocol: str = "sgd"

    def key(self, seed: int) -> jax.Array:
        """Root of the random numbers of this row: from its name, not from its place."""
        root = prng.stream_key(seed, "evaluate")
        return jax.random.fold_in(root, zlib.crc32(self.name.encode()))

    @property
    def remedy(self) -> str:
        """What to change where training on it diverges, as part of a sentence."""
        if not self.rate_field:
            return "they are the step size that its method gives the set"
        return f"lower --config.{self.rate_field}, which they come from"

    @property
    def is_transferred(self) -> bool:
        """Whether it is trained in another way than the rows of its block."""
        return bool(self.network) or self.protocol != "sgd"

    def select(self, data: Data, networks: Sequence[int]) -> Data:
        """The data of some of the networks, as if these were all."""
        if not self.per_network:
            return data
        own, *shared = data if self.block == "ii" else (data,)
        own = jax.tree.map(lambda x: x[np.asarray(networks)], own)
        return (own, *shared) if self.block == "ii" else own


def make_rows(run: Run) -> list[Row]:
    """Block (i): the distilled set and what it is compared with, in the order of the report.

    Raises:
      UserError: the set is missing, damaged or of other data.
    """
    final = labels_of.read_final(run)
    epochs = run.config.evaluation.num_epochs
    preset = find_preset(run)
    if preset.section == "selection":  # of all real images, also of those that judge rates
        title, rate_of = preset.title, "random_real"
        rows = [_set_row(run, "distilled", title, final, epochs, rate=None, rate_of=rate_of)]
        return [*rows, *make_baselines(run, final.kept_labels)]
    title = f"distilled set ({preset.title})"
    rate = float(final.synthetic.step_size)
    rows = [_set_row(run, "distilled", title, final, epochs, rate=rate)]
    rows += _further_rows(run, title, final, rows[0])
    initial = artefacts.read_set(run, artefacts.INITIAL)
    start = "the set before the first iteration"
    if final.checksum() != initial.checksum():  # that of RDED stays what it began as
        rows.append(_set_row(run, "initial", start, initial, epochs, rate=rate))
    rows.append(
        _set_row(run, "initial_at_baseline_rate", f"{start}, at the rate of the random real images",
                 initial, epochs, rate_of="random_real")
    )  # fmt: skip
    if run.config.evaluation.curve and "distilled" in run.config.evaluation.rows:
        for iteration, kept in labels_of.read_kept(run).items():
            rate = float(kept.synthetic.step_size)
            name = artefacts.name_kept(iteration)
            rows.append(
                _set_row(run, name, f"after {iteration} iterations", kept, epochs, rate=rate)
            )
    return [*rows, *make_baselines(run, final.kept_labels)]


def find_preset(run: Run) -> Preset:
    """The method that made the set, whatever the config says now."""
    record = claims.read_set_record(run.workspace)
    return PRESETS[record["config"]["distill"]["method"] if record else run.config.distill.method]


def count_bytes(run: Run, num_images: int, *, pixels: bool = False) -> dict[str, int]:
    """Bytes of the images of a set: 8-bit pixels, or network input in float32."""
    return {"images": num_images * int(np.prod(run.problem.image_shape)) * (1 if pixels else 4)}


def count_set_bytes(run: Run, found: LabelledSet) -> dict[str, int]:
    """Bytes of the images of a set: a byte for each value where its pixels are of 8 bits.

    These are real images, crops of them, and what a method has rounded itself.
    """
    return count_bytes(run, found.num_kept, pixels=_has_8_bits(run, found))


def name_regime(label_logits: Array, labels: np.ndarray) -> str:
    """H where every label says its class and nothing else, S1 otherwise."""
    probabilities = special.softmax(np.asarray(label_logits, np.float64), axis=1)
    own = probabilities[np.arange(len(labels)), labels]
    return "H" if (own > 1 - _SURE).all() else "S1"


def draw_random(run: Run, kept: np.ndarray, numbers: Sequence[int], count: int) -> np.ndarray:
    """Rows int64 [count, S] of random training images, of those in `kept`, for each network.

    S is the sum of `numbers`, one for each class.
    """
    labels = run.problem.train.labels
    root = prng.stream_key(run.config.seed, "baseline")
    keys = [jax.random.fold_in(root, seed) for seed in range(count)]
    drawn = [baselines.draw_random_subset(key, labels[kept], numbers) for key in keys]
    return kept[np.stack(drawn)]


def _further_rows(run, title, final, row):
    """The same images with hard labels, and rounded to 8 bits."""
    wanted, epochs, rate = run.config.evaluation.extra_rows, row.num_epochs, row.rate
    synthetic, rows = final.synthetic, []
    if "hard" in wanted and row.regime != "H":
        hard = losses.hard_label_logits(final.labels, run.problem.num_classes)
        changed = dataclasses.replace(
            final, synthetic=dataclasses.replace(synthetic, label_logits=hard)
        )
        words = f"{title}, hard labels"
        rows.append(_set_row(run, "distilled_hard", words, changed, epochs, rate=rate))
    if "8bit" in wanted:
        images = _round(run, final, np.asarray(synthetic.images))
        changed = dataclasses.replace(
            final, synthetic=dataclasses.replace(synthetic, images=images)
        )
        words = f"{title}, pixels rounded to 8 bits"
        made = _set_row(run, "distilled_8bit", words, changed, epochs, rate=rate)
        stored = made.stored_bytes | count_bytes(run, final.num_kept, pixels=True)
        rows.append(dataclasses.replace(made, stored_bytes=stored))
    return rows


def _has_8_bits(run, found):
    """Whether rounding its pixels to 8 bits leaves a set as it is."""
    images = np.asarray(found.synthetic.images)
    images = images[:: -(-len(images) // _SAMPLE)]
    return np.allclose(_round(run, found, images), images, rtol=0, atol=_ALIKE * np.std(images))


def _round(run, found, images):
    """Images of a set after their pixels were rounded to 8 bits."""
    preprocessing = run.problem.preprocessing
    factor = found.partition if preprocessing.whitens else 1  # as the set's file has them
    pixels = mosaic.map_cells(lambda x: normalize.invert(preprocessing, x), images, factor)
    return mosaic.map_cells(
        lambda x: normalize.apply(preprocessing, x), pixels / np.float32(255), factor
    )


def _set_row(run, name, title, found: LabelledSet, epochs, *, rate=None, rate_of=""):
    def load(count):
        return tuple(np.broadcast_to(x, (count, *x.shape)) for x in found.show())

    regime = name_regime(found.synthetic.label_logits, found.labels)
    of_labels = 4 * found.synthetic.label_logits.size if regime == "S1" else 0
    return Row(
        name=name,
        title=title,
        made_of=found.checksum(),
        num_rows=found.num_seen,
        num_stored=found.num_kept,
        num_epochs=epochs,
        load=load,
        # Also where all have the same: then sets and random images share one program.
        per_network=True,
        rate=rate,
        rate_of=rate_of,
        rate_field=protocols.GRIDS["i"] if rate is None else _find_rate_field(run),
        regime=regime,
        stored_bytes=count_set_bytes(run, found) | {"labels": int(of_labels), "teacher": 0},
    )


def _find_rate_field(run):
    """Where the step size of a set comes from, or where it starts to be learned."""
    section = find_preset(run).section
    fields = (name for name in _STEP_SIZES if name in run.config[section])
    return next((f"{section}.{name}" for name in fields), "")


def make_baselines(run: Run, of_set: np.ndarray) -> list[Row]:
    """Random real images of the same number, with soft labels too if the set has such, and all.

    These rows need no set: they are known before there is one.

    Args:
      run: whose labels and evaluation they are for.
      of_set: int [S], the class of every image of the set that is stored.
    """
    settings, problem = run.config.evaluation, run.problem
    labels, num_classes = problem.train.labels, problem.num_classes
    numbers, shown = describe_numbers(run, of_set)

    def real(rows):
        return problem.train_images[rows], losses.hard_label_logits(labels[rows], num_classes)

    def stored(num_images):
        return {"labels": 0, "teacher": 0} | count_bytes(run, num_images, pixels=True)

    def all_real(rows):
        if isinstance(problem.train_images, np.ndarray):
            return real(rows)
        table = losses.hard_label_logits(np.arange(num_classes), num_classes)
        images = streamed.for_programs(problem.train_images.take(rows))
        return images, streamed.LabelRows(table, labels[rows])

    everything = np.arange(len(labels))
    full_epochs = settings.full_num_epochs or settings.num_epochs
    # Rates that were chosen with more images of the frequent classes than there are count no more.
    is_tuned = len(settings.baseline_rates) > 1
    random_real = Row(
        name="random_real",
        title=RANDOM,
        made_of=f"{problem.fingerprint} {shown}",
        num_rows=sum(numbers),
        num_epochs=settings.num_epochs,
        load=lambda count: real(draw_random(run, everything, numbers, count)),
        per_network=True,
        load_kept=lambda kept, count: real(draw_random(run, kept, numbers, count)),
        is_shared=True,
        stored_bytes=stored(sum(numbers)),
    )
    full_real = Row(
        name="full_real",
        title=f"whole training set, {full_epochs + 1} epochs",
        made_of=f"{problem.fingerprint}{' spread' if is_tuned else ''}",
        num_rows=len(labels),
        num_epochs=full_epochs,
        load=lambda count: all_real(everything),
        per_network=False,
        load_kept=lambda kept, count: all_real(spread(kept, len(labels))),
        is_shared=True,
        stored_bytes=stored(len(labels)),
    )
    return [random_real, *_relabelled(run, random_real), full_real]


def describe_numbers(run: Run, of_set: np.ndarray) -> tuple[list[int], str]:
    """How many random real images of every class stand beside a set, and in words.

    Args:
      run: its data name the classes.
      of_set: int [S], the class of every image of the set that is stored.
    """
    numbers = np.bincount(of_set, minlength=run.problem.num_classes).tolist()
    if len(set(numbers)) == 1:
        return numbers, f"{numbers[0]} per class"
    return numbers, f"{', '.join(map(str, numbers))} of the classes"


def spread(rows: np.ndarray, length: int) -> np.ndarray:
    """`rows` repeated to a length evenly: ordered by class, every class keeps its share."""
    return rows[np.arange(length) * len(rows) // length]


def _relabelled(run, random_real):
    """Random real images with soft labels of the same source as those of the set."""
    source = run.config.labels.relabel
    if source not in ("experts", "teacher"):
        return []

    def load(count):
        images, label_logits = random_real.load(count)
        label = labels_of.make_labeller(run)
        found = [
            label(one, np.argmax(hard, axis=1))
            for one, hard in zip(images, label_logits, strict=True)
        ]
        return images, np.stack(found)

    num_bytes = 4 * random_real.num_rows * run.problem.num_classes
    identity = configs.identity_hash(labels_of.identify_source(run))
    return [
        dataclasses.replace(
            random_real,
            name="random_real_soft",
            title=f"{random_real.title}, labels of the {source}",
            made_of=f"{random_real.made_of}, {identity}",
            load=load,
            load_kept=None,
            rate_of="random_real",
            regime="S1",
            stored_bytes=random_real.stored_bytes | {"labels": num_bytes},
        )
    ]


def choose_rows(rows: Sequence[Row], kinds: Sequence[str]) -> list[Row]:
    """The rows of some kinds, and those whose learning rate they take.

    Args:
      rows: of all blocks that are asked for.
      kinds: of `config.ROWS`; those of a set kept on the way are "distilled".

    Raises:
      UserError: there is no row of these kinds.
    """
    wanted = {row.name for row in rows if name_kind(row) in kinds}
    wanted |= {row.rate_of for row in rows if row.name in wanted and row.rate is None}
    if not wanted:
        there = sorted({name_kind(row) for row in rows})
        raise UserError(
            f"--config.evaluation.rows={tuple(kinds)} leaves nothing to evaluate: this method has "
            f"only {', '.join(there)} in the blocks of --config.evaluation.blocks"
        )
    return [row for row in rows if row.name in wanted]


def name_kind(row: Row) -> str:
    """Which of `config.ROWS` a row belongs to."""
    name = row.name.removeprefix(SECOND) if row.block == "ii" else row.name
    found = [kind for kind in configs.ROWS[1:] if name.startswith(kind)]
    return max(found, key=len, default=configs.ROWS[0])  # that of the longest name


def order_for_rates(rows: Sequence[Row]) -> list[Row]:
    """The rows in an order in which every rate is known before it is used."""
    return sorted(rows, key=lambda row: bool(row.rate_of))
