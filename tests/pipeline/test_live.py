"""Breaks when TensorBoard shows other numbers than metrics.jsonl, or a resumed run's twice."""

import dataclasses
import io
import itertools
import json
import signal
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.data import normalize
from ltdd_jax.pipeline import artefacts, live
from ltdd_jax.runtime import interrupt
from ltdd_jax.types import Interrupted, UserError
from tests.pipeline import small_run

pytest.importorskip("tensorboardX", reason="the event files are written with tensorboardX")
accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard reads the events"
)


def read(directory):
    """What TensorBoard reads from the files of a stage."""
    sizes = {accumulators.IMAGES: 0, accumulators.HISTOGRAMS: 0}  # 0 is all
    return accumulators.EventAccumulator(str(directory), sizes).Reload()


def test_event_files_say_what_the_metrics_say(copy, run, monkeypatch):
    """Stopped in the middle of the distillation, then continued; experts and results as well."""
    workdir = copy(without=("distill",))
    calls = itertools.count(1)

    def agree_max(received, *wishes):
        return (signal.SIGTERM if next(calls) == 6 else received, *wishes)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt.processes, "agree_max", agree_max)
        with pytest.raises(Interrupted):
            run(workdir, runtime__tensorboard=True)
    assert any((workdir / "tensorboard" / "distill").iterdir()), "stopped before it began"
    run(workdir, runtime__tensorboard=True)

    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for stage in ("representation", "classifier", "distill"):
        events = read(workdir / "tensorboard" / stage).Scalars("loss")
        logged = [(x["step"], x["loss"]) for x in lines if x["stage"] == stage]
        assert [event.step for event in events] == [step for step, _ in logged] != []
        np.testing.assert_allclose([event.value for event in events], [y for _, y in logged], 1e-6)
    shown = read(workdir / "tensorboard" / "distill")
    for events in (shown.Images("distilled_images"), shown.Histograms("label_logits")):
        assert [event.step for event in events] == [0, 3, 6, 7]
    results = json.loads((workdir / "report.json").read_text())["results"]
    accuracies = read(workdir / "tensorboard" / "evaluate")
    for name, row in results.items():
        (event,) = accuracies.Scalars(f"accuracy/{name}")
        np.testing.assert_allclose(event.value, row["balanced"], 1e-6)
        assert event.step == (0 if name.startswith("initial") else 7)


def test_pictures_of_cells_are_shown_as_they_are_stored(tmp_path):
    """Breaks when the whitening of an image that holds several pictures is undone as one of all."""
    run = small_run.make_run(tmp_path, runtime__tensorboard=True)
    whitening = normalize.fit(run.problem.train.images, whiten=True)
    run = dataclasses.replace(
        run, problem=dataclasses.replace(run.problem, preprocessing=whitening)
    )
    found = small_run.write_sets(run, partition=2)[artefacts.FINAL]
    labels = artefacts.read_set(run, artefacts.FINAL).labels
    method = types.SimpleNamespace(labels=labels, partition=2, result=lambda state: state)
    with run.workspace.events.record("distill", 0):
        live.show_set(run, method, found, 0)
    (shown,) = read(tmp_path / "tensorboard" / "distill").Images("distilled_images")
    picture = Image.open(io.BytesIO(shown.encoded_image_string))
    stored = Image.open(run.workspace.synthetic / artefacts.GRID)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(stored))


def test_first_sets_of_both_blocks_stand_at_the_first_iteration(tmp_path):
    """Breaks when what was reached before the first iteration is shown after the last one."""
    run = small_run.make_run(tmp_path, runtime__tensorboard=True)
    steps = {"initial": 0, "ii_initial": 0, "ii_distilled": 7, "random_real": 7, "distilled": 7}
    live.show_results(run, {name: {"balanced": 50.0} for name in steps}, 7)
    found = read(tmp_path / "tensorboard" / "evaluate")
    for name, step in steps.items():
        assert [event.step for event in found.Scalars(f"accuracy/{name}")] == [step], name


def test_a_missing_package_leaves_no_trace(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'ltdd_jax\[tensorboard\]'"):
        run(tmp_path / "run", runtime__tensorboard=True)
    assert list(tmp_path.iterdir()) == []
