"""Labels after any method: the last step of stage `distill`, whose product is a file of its own.

The distilled images stay as they are. What the labels are made of is their identity, so that other
labels of the same set lie beside them, and the set itself never has to be made again.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from ltdd_jax import config as configs
from ltdd_jax.data import views
from ltdd_jax.distill import Method
from ltdd_jax.distill.method import Teacher, ask_teachers, predict_in_blocks
from ltdd_jax.evaluate import calibration
from ltdd_jax.pipeline import artefacts, experts, protocols, teachers
from ltdd_jax.pipeline.artefacts import LabelledSet
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import files, prng, processes
from ltdd_jax.types import UserError

EXPERT = "classifier"  # the kind of expert that labels
_HASH_DIGITS = 8


def add_needs(run: Run, method: Method) -> Method:
    """The method with the experts and teachers that the labels and the evaluation need besides."""
    kinds = method.experts
    if run.config.labels.relabel == "experts":
        kinds = (*kinds, *(kind for kind in experts.KINDS if kind not in kinds))
    asked = method.teachers
    labels = run.config.labels.relabel in ("teacher", "views")
    taught = labels or configs.has_taught_rows(run.config)
    if taught and teachers.TEACHER not in asked:
        asked = (*asked, teachers.TEACHER)
    return dataclasses.replace(method, experts=kinds, teachers=asked)


def identify_source(run: Run) -> dict[str, Any]:
    """What decides the labels beside the set: who gives them, and how they are calibrated."""
    settings = run.config.labels
    found = {"relabel": settings.relabel, "calibration": settings.calibration}
    if settings.relabel == "experts":
        found["experts"] = experts.identify(run, EXPERT)
        found["num_experts"] = run.config.experts.num_experts
    if settings.relabel in ("teacher", "views"):
        found["teacher"] = teachers.identify(run, teachers.TEACHER)
    if settings.relabel == "views":
        recipe = dataclasses.asdict(protocols.make_recipe(run))
        found["recipe"] = recipe | {"area": list(recipe["area"])}
        found |= {"views": settings.views, "dtype": settings.view_dtype, "seed": run.config.seed}
    return found


def run_relabel(run: Run) -> None:
    """Makes the labels that the config asks for, if they are not there, and makes them the set's.

    Sets kept on the way, whose accuracy makes a curve with that of the set, are labelled likewise.

    Raises:
      UserError: the set, experts or teachers are missing, a full disk, or labels that do not fit
        their number format.
      Interrupted: stopped by a signal, with everything saved.
      trajectory.DamagedSegmentError: an expert that is needed is damaged.
    """
    processes.meet("distilled")  # the first has written the set that all read
    found = artefacts.read_set(run, artefacts.FINAL)
    path = find_file(run, found)
    if path is not None:
        ask = functools.cache(lambda: make_labeller(run))  # one for all sets, if one is needed
        if _label(run, found, path, ask):
            processes.say(f"labels of the set: {path} ({run.config.labels.relabel})")
        for kept in artefacts.read_kept(run).values() if _has_labelled_curve(run) else ():
            run.stop.agree()
            run.stop.raise_if_requested()
            _label(run, kept, find_file(run, kept), ask)
    _point_to(run, path)


def _has_labelled_curve(run):
    """Whether sets kept on the way are labelled: views are for block (ii), which has no curve."""
    wanted = run.config.evaluation
    return wanted.curve and "distilled" in wanted.rows and run.config.labels.relabel != "views"


def _label(run, found, path, ask):
    """Writes the labels of a set if they are not there; whether it did."""
    if not processes.first_then_rest(lambda: not path.exists() or _is_damaged(run, path)):
        return False
    arrays = _make(run, found, ask)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, identity=json.dumps(identify_source(run), sort_keys=True))
    files.write_bytes(path, buffer.getvalue())
    return True


def choose_present(run: Run) -> None:
    """Makes the labels that the config asks for the set's, if they are there.

    So a set that is evaluated again is read with the labels that its report is about.

    Raises:
      UserError: the set is missing.
    """
    path = find_file(run, artefacts.read_set(run, artefacts.FINAL))
    if path is None or path.exists():
        _point_to(run, path)


def read_final(run: Run) -> LabelledSet:
    """The finished set with the labels that the config asks for.

    Raises:
      UserError: the set or its labels are missing, damaged or of other data.
    """
    return read_labels(run, artefacts.read_set(run, artefacts.FINAL))[0]


def read_kept(run: Run) -> dict[int, LabelledSet]:
    """The sets kept on the way, by their iterations, with labels of the source of the last one's.

    Labels of views are for block (ii), which has no curve: with these they have their method's.
    Sets without labels are left out with a warning.

    Raises:
      UserError: a set or its labels cannot be read.
    """
    found, labelled = artefacts.read_kept(run), {}
    if not _has_labelled_curve(run):
        return found
    for iteration, kept in found.items():
        path = find_file(run, kept)
        if path is None or processes.first_then_rest(path.exists):
            labelled[iteration] = read_labels(run, kept)[0]
        else:
            run.workspace.warn(
                f"{path} is missing, so that the curve has no point after {iteration} iterations: "
                "--stage=distill with the same --workdir, --config.labels and "
                "--config.evaluation.curve=true makes it"
            )
    return labelled


def read_labels(run: Run, found: LabelledSet) -> tuple[LabelledSet, views.StoredViews | None]:
    """A set with the labels that the config asks for, and its stored views if any.

    Raises:
      UserError: the labels are missing, damaged or of other data.
    """
    path = find_file(run, found)
    if path is None:
        return found, None
    if not path.exists():
        raise UserError(
            f"{path} is missing: run --stage=distill with the same --workdir and --config.labels, "
            "which labels the set that is there"
        )
    found = found.expand()
    arrays = _read(run, path, len(found.labels))
    if run.config.labels.relabel == "views":
        stored = views.StoredViews(arrays["views"], arrays["key"], protocols.make_recipe(run))
        return found, stored
    synthetic = dataclasses.replace(found.synthetic, label_logits=arrays["label_logits"])
    return dataclasses.replace(found, synthetic=synthetic), None


def find_file(run: Run, found: LabelledSet) -> epath.Path | None:
    """Where the labels of the set, as it is stored, lie; None for those that the method gave."""
    settings = run.config.labels
    if settings.relabel == "none" and settings.calibration == "none":
        return None
    made_of = identify_source(run) | {"set": found.checksum()}
    name = f"labels-{configs.identity_hash(made_of)[:_HASH_DIGITS]}.npz"
    return run.workspace.synthetic / name


def make_labeller(run: Run) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(images [S, H, W, C], labels int [S]) -> label logits float32 [S, K], calibrated.

    Mean logits of the networks that `labels.relabel` names; the calibration is that of the images.

    Raises:
      UserError: networks are missing.
      trajectory.DamagedSegmentError: an expert is damaged.
    """
    ask = _make_mean(run)

    def label(images, labels):
        logits = ask(images)
        return shift(run, logits, find_tau(run, logits, labels))

    return label


def find_tau(run: Run, logits: np.ndarray, labels: np.ndarray) -> float:
    """tau of the calibration for logits [S, K] of clean images; 0 without one."""
    if run.config.labels.calibration == "none":
        return 0.0
    return calibration.find_tau(logits, labels, _prior(run))


def shift(run: Run, logits: np.ndarray, tau: float) -> np.ndarray:
    """Logits [..., K] with tau parts of the class prior taken out."""
    return calibration.shift_logits(logits, _prior(run), tau)


def label_views(
    run: Run, asked: tuple[Teacher, ...], images: np.ndarray, labels: np.ndarray, key: jax.Array
) -> views.StoredViews:
    """The teachers' calibrated labels of the views of a set.

    Args:
      run: its sections `labels` and `student` say how many and which.
      asked: teachers.
      images: float32 [S, H, W, C].
      labels: int [S].
      key: typed key of the views.
    """
    settings, recipe = run.config.labels, protocols.make_recipe(run)
    tau = 0.0
    if settings.calibration != "none":
        tau = find_tau(run, ask_teachers(asked, images), labels)
    size, rows = images.shape[1:3], np.arange(len(images))

    @jax.jit
    def make_view(view):
        return views.take(images, views.draw(key, view, len(images), size, recipe), rows)

    answers = [ask_teachers(asked, np.asarray(make_view(i))) for i in range(settings.views)]
    logits = shift(run, np.stack(answers), tau).astype(settings.view_dtype)
    if not np.isfinite(logits).all():
        raise UserError(
            f"labels of the views do not fit --config.labels.view_dtype={settings.view_dtype}: "
            "set it to float32"
        )
    return views.StoredViews(logits, np.asarray(jax.random.key_data(key)), recipe)


def _make(run, found, ask):
    """Arrays of the file of labels: of every picture that a student sees; () -> labeller."""
    found = found.expand()
    source, images = run.config.labels.relabel, np.asarray(found.synthetic.images)
    if source == "views":
        key = prng.stream_key(run.config.seed, "views")
        stored = label_views(
            run, teachers.read_teachers(run, teachers.TEACHER), images, found.labels, key
        )
        return {"views": stored.logits, "key": stored.key}
    if source == "none":
        logits = np.asarray(found.synthetic.label_logits)
        logits = shift(run, logits, find_tau(run, logits, found.labels))
    else:
        logits = ask()(images, found.labels)
    return {"label_logits": logits}


def _make_mean(run):
    """images -> mean logits of the experts or teachers."""
    if run.config.labels.relabel != "experts":
        asked = teachers.read_teachers(run, teachers.TEACHER)
        return lambda images: ask_teachers(asked, images)
    apply, read = jax.jit(run.problem.network.apply), experts.Snapshots(run).read
    count = run.config.experts.num_experts

    def ask(images):
        each = (predict_in_blocks(apply, read(EXPERT, e, -1), images) for e in range(count))
        return (sum(logits.astype(np.float64) for logits in each) / count).astype(np.float32)

    return ask


def _prior(run):
    counts = np.asarray(run.problem.class_counts, np.float64)
    return counts / counts.sum()


def _point_to(run, path):
    """Says which labels are the set's, for those who read it without a config."""
    pointer = run.workspace.synthetic / "labels.json"
    name = "" if path is None else path.name
    if name or pointer.exists():
        recipe = dataclasses.asdict(protocols.make_recipe(run))
        record = {"file": name, "recipe": recipe | {"area": list(recipe["area"])}}
        files.write_sealed(pointer, record)


def _is_damaged(run, path):
    """Whether the file has to be made again; it is then moved aside."""
    try:
        _read(run, path, None)
    except files.DamagedFileError as error:
        run.workspace.warn(f"{error}; moved to {files.set_aside(path).name}, making it again")
        return True
    return False


def _read(run, path, num_rows):
    """Arrays of a file of labels for `num_rows` images, of any number if None."""
    settings, num_classes = run.config.labels, run.problem.num_classes
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        is_views = settings.relabel == "views"
        labels = arrays["views" if is_views else "label_logits"]
        expected = settings.view_dtype if is_views else "float32"
        shape = (settings.views,) if is_views else ()
        shape = (*shape, labels.shape[-2] if num_rows is None else num_rows, num_classes)
        fits = labels.dtype == expected and labels.shape == shape and np.isfinite(labels).all()
        if not fits or (is_views and arrays["key"].dtype != np.uint32):
            raise ValueError("its arrays are not of this run")
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib or NumPy
        files.raise_if_unreadable(path, error)
        raise files.DamagedFileError(
            f"{path} is damaged ({error!r}); run --stage=distill again, which labels the set anew"
        ) from error
    return arrays
