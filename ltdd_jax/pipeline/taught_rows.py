"""Block (ii) of an evaluation: the rows whose networks learn a teacher's labels of every view.

All rows have the same teachers and the same protocol (section `student`), and one learning rate,
which is chosen on random real images: so that they differ in the images alone.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from ltdd_jax import config as configs
from ltdd_jax.distill.method import Teacher, ask_teachers
from ltdd_jax.evaluate import metrics
from ltdd_jax.evaluate.student import Lesson, Teaching
from ltdd_jax.pipeline import artefacts, protocols, teachers
from ltdd_jax.pipeline import labels as labels_of
from ltdd_jax.pipeline import rows as rows_of
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import prng

_KEY_BYTES = 8  # of the views, beside their labels


def make_rows(run: Run) -> list[Row]:
    """The distilled set, the set it started from and random real images, taught alike.

    Raises:
      UserError: the set, its labels or the teachers are missing, damaged or of other data.
    """
    # With the labels of its method, whatever it was labelled with since: no student reads them, and
    # results of the same images stay the same.
    final = artefacts.read_set(run, artefacts.FINAL)
    _, stored = labels_of.read_labels(run, final)
    preset = rows_of.find_preset(run)
    school = _School(run, teachers.read_teachers(run, teachers.TEACHER))
    is_real = preset.section == "selection"
    title = preset.title if is_real else f"distilled set ({preset.title})"
    distilled = school.make_row("distilled", title, final, stored)
    rows = [school.make_random_row(final.kept_labels), distilled]
    if not is_real:
        initial = artefacts.read_set(run, artefacts.INITIAL)
        # Of images alone: labels that were made later have no part in this block.
        if not np.array_equal(final.synthetic.images, initial.synthetic.images):
            title = "the set before the first iteration"
            rows.insert(1, school.make_row("initial", title, initial, None))
    return rows


def sketch_random_row(run: Run, of_set: np.ndarray) -> Row:
    """The row of random real images before there are teachers: what it is, with nothing to load.

    Args:
      run: whose teachers and students it is for.
      of_set: int [S], the class of every image of the set that is stored.
    """
    return _School(run, ()).make_random_row(of_set)


def measure_teachers(run: Run) -> dict[str, Any]:
    """What the teachers' mean logits get right of the test set: no student is meant to do better.

    Returns:
      `mean` and `balanced` accuracy in percent, that of the groups of classes, `per_class`, and
      `nets`, how many networks are averaged.
    """
    asked, problem = teachers.read_teachers(run, teachers.TEACHER), run.problem
    logits = ask_teachers(asked, problem.test_images)
    accuracies = metrics.per_class_accuracy(
        logits.argmax(axis=1)[None], problem.test.labels, problem.num_classes
    )
    counts = np.asarray(problem.class_counts)
    summary = metrics.summarize(accuracies, problem.test_counts, counts)
    of_seeds = ("per_seed", "std")  # of one answer they say nothing
    return {k: v for k, v in summary.items() if k not in of_seeds} | {"nets": len(asked)}


@dataclasses.dataclass(frozen=True)
class _School:
    """What the rows of this block share."""

    run: Run
    teachers: tuple[Teacher, ...]

    def make_row(self, name, title, found, stored) -> Row:
        """The row of a set; `stored` are its views if they are stored already."""
        shown = found.expand()
        images, labels = np.asarray(shown.synthetic.images), np.asarray(shown.labels)

        def load(count):
            one = _make_lesson(self.run, self.teachers, images, labels, stored, 0)
            own = jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), one)
            return own, _make_teaching(self.run, self.teachers, images, labels)

        made = self._make(name, title, found.checksum(), len(labels), load)
        of_images = rows_of.count_set_bytes(self.run, found)
        return dataclasses.replace(
            made,
            rate_of=f"{rows_of.SECOND}random_real",
            num_stored=found.num_kept,
            stored_bytes={**made.stored_bytes, **of_images},
        )

    def make_random_row(self, of_set) -> Row:
        """Random real images of the same number, whose rate is that of all rows."""
        run = self.run
        numbers, shown = rows_of.describe_numbers(run, of_set)
        labels = run.problem.train.labels

        def load_kept(kept, count):
            drawn = rows_of.draw_random(run, kept, numbers, count)
            sets = [(np.asarray(run.problem.train_images[rows]), labels[rows]) for rows in drawn]
            lessons = [
                _make_lesson(self.run, self.teachers, *one, None, lane)
                for lane, one in enumerate(sets)
            ]
            own = jax.tree.map(lambda *leaves: np.stack(leaves), *lessons)
            images, own_labels = (np.concatenate(parts) for parts in zip(*sets, strict=True))
            return own, _make_teaching(self.run, self.teachers, images, own_labels)

        made = self._make(
            "random_real",
            rows_of.RANDOM,
            f"{run.problem.fingerprint} {shown}",
            sum(numbers),
            lambda count: load_kept(np.arange(len(labels)), count),
        )
        return dataclasses.replace(made, load_kept=load_kept, is_shared=True)

    def _make(self, name, title, made_of, num_rows, load) -> Row:
        """A row whose images are counted like real ones, at a byte for each value."""
        run, identity = self.run, configs.identity_hash(identify(self.run))
        num_views = _count_views(run)
        num_labels = num_views * num_rows * run.problem.num_classes
        size = np.dtype(run.config.labels.view_dtype).itemsize
        of_labels = num_labels * size + _KEY_BYTES if num_views else 0
        of_teacher = 0 if num_views else _count_bytes(self.teachers)
        return Row(
            name=f"{rows_of.SECOND}{name}",
            title=title,
            made_of=f"{made_of}, {identity}",
            num_rows=num_rows,
            num_epochs=run.config.student.num_epochs,
            load=load,
            per_network=True,
            block="ii",
            rate_field=protocols.GRIDS["ii"],
            regime="SE" if num_views else "ST",
            stored_bytes=rows_of.count_bytes(run, num_rows, pixels=True)
            | {"labels": of_labels, "teacher": of_teacher},
            num_views=num_views,
            find_teachers=lambda: tuple(teacher.network for teacher in self.teachers),
        )


def _make_lesson(run, asked, images, labels, stored, lane) -> Lesson:
    """What one student learns from; its views are labelled here where they are not yet."""
    labels = labels.astype(np.int32)
    if not _count_views(run):
        return Lesson(images=images, labels=labels)
    if stored is None:
        key = jax.random.fold_in(prng.stream_key(run.config.seed, "views"), lane)
        stored = labels_of.label_views(run, asked, images, labels, key)
    return Lesson(images=images, labels=labels, key=stored.key, logits=stored.logits)


def _make_teaching(run, asked, images, labels) -> Teaching:
    """The teachers, and what calibrates their answers; stored labels are calibrated already."""
    shift, params = np.zeros(run.problem.num_classes, np.float32), ()
    if not _count_views(run):
        params = tuple(teacher.params for teacher in asked)
        if run.config.labels.calibration != "none":
            tau = labels_of.find_tau(run, ask_teachers(asked, images), labels)
            shift = labels_of.shift(run, shift, tau)
    return Teaching(params=params, shift=shift)


def _count_views(run):
    """Stored views of every image; 0 where the teachers are live."""
    settings = run.config.labels
    return settings.views if settings.relabel == "views" else 0


def identify(run: Run) -> dict[str, Any]:
    """What decides the labels that the students learn from."""
    settings = run.config.labels
    found: dict[str, Any] = {"teacher": teachers.identify(run, teachers.TEACHER)}
    found["calibration"] = settings.calibration
    if settings.relabel == "views":
        found |= {"views": settings.views, "dtype": settings.view_dtype}
    return found


def _count_bytes(asked: tuple[Teacher, ...]) -> int:
    return sum(np.asarray(x).nbytes for one in asked for x in jax.tree.leaves(one.params))
