"""Labels after distillation: who gives them, where they lie, and that the images stay."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import ltdd_jax
from ltdd_jax import nets, pipeline
from ltdd_jax.evaluate import calibration
from ltdd_jax.types import UserError
from tests.pipeline import fake_teachers


@pytest.fixture
def taught(monkeypatch):
    """Two linear teachers."""
    made = fake_teachers.make(0), fake_teachers.make(1)
    fake_teachers.install(monkeypatch, *made)
    return made


def test_teachers_label_the_images_and_nothing_is_distilled_again(copy, run, taught):
    """Breaks when labels change the set's file or identity, the calibration is not applied, or
    the labels of another setting are read.
    """
    workdir = copy()
    own = ltdd_jax.load_dataset(workdir)
    before = {p: p.read_bytes() for p in (workdir / "synthetic").iterdir()}
    shutil.rmtree(workdir / "experts")  # so nothing could be distilled
    run(workdir, "distill", labels__relabel="teacher")
    found = ltdd_jax.load_dataset(workdir)
    np.testing.assert_array_equal(found.images, own.images)
    expected = fake_teachers.answer(taught, own.images)
    np.testing.assert_allclose(found.label_logits, expected, rtol=1e-4, atol=1e-4)
    assert found.views is None
    (path,) = (workdir / "synthetic").glob("labels-*.npz")
    first = path.stat().st_mtime_ns

    fields = {"labels__relabel": "teacher", "labels__calibration": "adsa"}
    run(workdir, "distill", **fields)
    found = ltdd_jax.load_dataset(workdir)
    counts = np.array(json.loads((workdir / "report.json").read_text())["train_counts"])
    prior = counts / counts.sum()
    tau = calibration.find_tau(expected, found.labels, prior)
    assert tau > 0.01
    expected = expected - tau * np.log(prior)
    np.testing.assert_allclose(found.label_logits, expected, rtol=1e-3, atol=1e-3)

    run(workdir, "distill", labels__relabel="teacher")  # is there already
    assert path.stat().st_mtime_ns == first
    run(workdir, "distill")
    np.testing.assert_array_equal(ltdd_jax.load_dataset(workdir).label_logits, own.label_logits)
    assert {p: p.read_bytes() for p in before} == before


def test_labels_that_are_evaluated_are_those_of_the_set(copy, run, taught):
    """Breaks when a report is about other labels than `load_dataset` and the exports give."""
    workdir = copy()
    own = ltdd_jax.load_dataset(workdir)
    run(workdir, "distill", labels__relabel="teacher")
    run(workdir, "evaluate")
    np.testing.assert_array_equal(ltdd_jax.load_dataset(workdir).label_logits, own.label_logits)
    run(workdir, "evaluate", labels__relabel="teacher")
    expected = fake_teachers.answer(taught, own.images)
    found = ltdd_jax.load_dataset(workdir).label_logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_views_are_labelled_by_what_the_teacher_says_of_the_very_views(copy, run, taught):
    """Breaks when labels and views are shuffled against each other, or the key is another's."""
    workdir = copy()
    run(workdir, "distill", labels__relabel="views", labels__views=3)
    found = ltdd_jax.load_dataset(workdir)
    assert found.views.logits.shape == (3, 10, 10)
    assert found.views.logits.dtype == np.float16
    assert not found.views.recipe.flip  # the strategy of the config does not mirror
    for number, logits in enumerate(found.views.logits):
        expected = fake_teachers.answer(taught, found.views.make(found.images, number))
        np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-2)
    # The labels of the images themselves stay those of the method.
    own = dataclasses.replace(found, views=None)
    run(workdir, "distill")
    np.testing.assert_array_equal(ltdd_jax.load_dataset(workdir).label_logits, own.label_logits)


def test_experts_label_by_their_mean(copy, run, tiny):
    """Breaks when the first stage labels, or only the experts that are right."""
    workdir = copy()
    run(workdir, "distill", labels__relabel="experts")
    found = ltdd_jax.load_dataset(workdir)
    snapshots = pipeline.Snapshots(pipeline.open_run(tiny(), str(workdir)))
    network = nets.build("convnet", image_shape=(8, 8, 1), num_classes=10, width=4, depth=1)
    each = [
        jax.jit(network.apply)(snapshots.read("classifier", e, -1), found.images) for e in range(2)
    ]
    np.testing.assert_allclose(found.label_logits, np.mean(each, axis=0), rtol=1e-4, atol=1e-4)


def test_missing_and_damaged_labels_are_told_and_made_again(copy, run, taught, capfd):
    """Breaks when a row is evaluated with the wrong labels, or a damaged file ends a run."""
    workdir = copy(without=("evaluate",))
    with pytest.raises(UserError, match=r"labels-\w+.npz is missing: run --stage=distill"):
        run(workdir, "evaluate", labels__relabel="teacher")
    run(workdir, "distill", labels__relabel="teacher")
    (path,) = (workdir / "synthetic").glob("labels-*.npz")
    whole = np.load(path)["label_logits"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        ltdd_jax.load_dataset(workdir)
    capfd.readouterr()
    run(workdir, "distill", labels__relabel="teacher")
    assert "making it again" in capfd.readouterr().out
    np.testing.assert_array_equal(np.load(path)["label_logits"], whole)
