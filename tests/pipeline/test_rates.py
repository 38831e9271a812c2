"""The learning rates of real images: chosen on held-out training images, never on test images."""

import dataclasses
import json

import numpy as np
import pytest

from ltdd_jax import pipeline
from ltdd_jax.data import long_tail
from ltdd_jax.pipeline import loop, problem, rows, trainers
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.workspace import Workspace
from tests.pipeline import runs, tiny_config

BASELINES = ("random_real", "full_real")


@pytest.fixture(scope="module")
def task():
    config = tiny_config.get_config()
    return config, problem.load_problem(config, *problem.load_sets(config))


def test_rates_are_compared_on_networks_that_never_saw_the_held_out_images(task, finished):
    """Breaks when a baseline takes an image that judges it, or gives it another class."""
    config, data = task
    these = rows.make_rows(Run(config, data, Workspace(config, str(finished)), None))
    labels = data.train.labels
    kept, held = long_tail.hold_out((config.seed, 1), labels, config.evaluation.held_out)
    known = {data.train_images[row].tobytes(): row for row in range(len(labels))}
    # Equal pictures could lie on both sides; here are none.
    assert len(known) == len(labels)
    tuned = [row for row in these if row.load_kept is not None]
    assert [row.name for row in tuned] == list(BASELINES)
    for row in tuned:
        images, logits = row.load_kept(kept, 2)
        assert images.shape[-4] == row.num_rows  # the compiled program of the row itself
        images, logits = images.reshape(-1, *data.image_shape), logits.reshape(-1, 10)
        taken = np.array([known[image.tobytes()] for image in images])
        assert set(taken) <= set(kept) and not set(taken) & set(held)
        np.testing.assert_array_equal(logits.argmax(axis=1), labels[taken])
        assert set(labels[taken]) == set(range(10))
        whole, _ = row.load(2)
        assert whole.shape[-4] == row.num_rows


def test_the_whole_set_is_judged_with_its_own_imbalance(task, finished):
    """Breaks when the images that are left are repeated from the first class on."""
    config, data = task
    these = rows.make_rows(Run(config, data, Workspace(config, str(finished)), None))
    kept, _ = long_tail.hold_out((config.seed, 1), data.train.labels, 0.3)
    _, logits = next(row for row in these if row.name == "full_real").load_kept(kept, 1)
    assert len(logits) == len(data.train.labels)
    left = np.bincount(data.train.labels[kept]) / len(kept)
    used = np.bincount(logits.argmax(axis=1)) / len(logits)
    np.testing.assert_allclose(used, left, atol=1 / len(logits))


def test_test_images_have_no_part_in_the_choice(copy, finished, run, monkeypatch):
    """With other test images and labels the same rates are chosen by the same scores."""
    workdir, load = copy(without=("evaluate",)), problem.load_problem

    def spoil(*arguments):
        found = load(*arguments)
        test = dataclasses.replace(found.test, labels=np.roll(found.test.labels, 5))
        return dataclasses.replace(found, test=test, test_images=-found.test_images)

    monkeypatch.setattr(pipeline, "load_problem", spoil)
    run(workdir, "evaluate")
    for row in BASELINES:
        before, after = (
            json.loads(runs.find_result(x, row).read_text()) for x in (finished, workdir)
        )
        assert after["per_seed_per_class"] != before["per_seed_per_class"]
        assert (after["rate"], after["tuning"]) == (before["rate"], before["tuning"])


def test_no_rate_of_the_whole_training_set_is_tried_twice(copy, run, monkeypatch):
    """Breaks when fewer rates than networks are padded: that costs as much as the rates."""
    workdir, trained, train = copy(without=("evaluate",)), [], trainers._Trainer.train

    def note(self, job, data, rates):
        trained.append(rates.tolist())
        return train(self, job, data, rates)

    monkeypatch.setattr(trainers._Trainer, "train", note)
    fields = {"evaluation__baseline_rates": (0.01, 0.05), "evaluation__num_seeds": 3}
    run(workdir, "evaluate", evaluation__rows=("full_real",), evaluation__num_epochs=1, **fields)
    tried, used = trained
    assert tried == [0.01, 0.05] and used[0] in tried and used == 3 * used[:1]


def test_compared_networks_are_saved_without_what_pads_them_to_devices(copy, run, monkeypatch):
    """Breaks when a comparison that was stopped begins anew on a machine of other devices."""
    workdir, saved, save = copy(without=("evaluate",)), [], loop.Checkpoints.save

    def note(self, writer, state, done, meta):
        saved.append(len(state.step))
        return save(self, writer, state, done, meta)

    monkeypatch.setattr(loop.Checkpoints, "save", note)
    fields = {"evaluation__baseline_rates": (0.01, 0.05), "evaluation__num_seeds": 3}
    run(workdir, "evaluate", evaluation__rows=("full_real",), evaluation__num_epochs=1, **fields)
    assert saved[0] == 2  # of the comparison, which comes first


def test_best_rate_on_the_held_out_images_is_used(finished):
    results = json.loads((finished / "report.json").read_text())["results"]
    for row in BASELINES:
        scores = {float(rate): score for rate, score in results[row]["tuning"].items()}
        assert scores.keys() == {0.02, 0.05}
        assert scores[results[row]["rate"]] == max(scores.values())
    assert results["initial_at_baseline_rate"]["rate"] == results["random_real"]["rate"]
    for row in ("distilled", "initial", "initial_at_baseline_rate"):
        assert results[row]["tuning"] == {}
    with np.load(finished / "synthetic" / "synthetic.npz") as archive:
        step_size = float(archive["step_size"])
    assert results["distilled"]["rate"] == results["initial"]["rate"] == step_size
