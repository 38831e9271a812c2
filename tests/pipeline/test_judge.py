"""Held-out training images in the place of the test set: which they are, and that it stays shut."""

import dataclasses
import json
import types

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.data import digits, normalize, sources
from ltdd_jax.pipeline import evaluate, experts, look, plan, problem
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.runtime import files
from ltdd_jax.types import UserError
from tests.pipeline import small_run, tiny_config


def configure(**fields):
    """The tiny config with held-out judges; "__" stands for the dot."""
    config = tiny_config.get_config()
    fields = {"data__judge": "held_out"} | fields
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def list_images(images):
    """(pixels, label) of every image, as they can be counted and compared."""
    return [(x.tobytes(), int(k)) for x, k in zip(images.images[:], images.labels, strict=True)]


def shut(monkeypatch):
    """Makes the test set of the digits raise when it is read."""
    read = digits.read_digits

    def refuse(split):
        assert split != "test", "the test set was read"
        return read(split)

    monkeypatch.setattr(digits, "read_digits", refuse)


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("subset", ["long_tail", "as_is"])
def test_training_images_are_split_class_by_class(monkeypatch, share, subset):
    """Breaks when an image is on both sides or lost, or a class is missing on one of them."""
    fields = {"data__judge_share": share, "data__subset": subset}
    whole, _ = problem.load_sets(configure(data__judge="test", **fields))
    shut(monkeypatch)
    train, judges = problem.load_sets(configure(**fields))
    counts = np.bincount(whole.labels)
    expected = [max(1, int(share * n)) for n in counts]
    np.testing.assert_array_equal(np.bincount(judges.labels), expected)
    np.testing.assert_array_equal(np.bincount(train.labels), counts - expected)
    assert min(counts) == (6 if subset == "long_tail" else 124)
    kept, held = list_images(train), list_images(judges)
    assert not set(kept) & set(held)
    assert sorted(kept + held) == sorted(list_images(whole))
    assert (np.diff(train.labels) >= 0).all() and (np.diff(judges.labels) >= 0).all()


def test_split_depends_on_the_seed():
    one, again, other = (list_images(problem.load_sets(configure(seed=s))[1]) for s in (0, 0, 1))
    assert one == again and set(one) != set(other)


def test_class_of_one_image_is_named():
    """Breaks when a class would have nobody to judge it, or nothing to learn from."""
    images = sources.ImageSet(np.zeros((3, 2, 2, 1), np.uint8), np.int32([0, 0, 1]), ("cat", "dog"))
    config = configure(data__subset="as_is")
    with pytest.raises(UserError, match=r"class 'dog' has one training image.*data.judge=test"):
        problem.sort_sets(config, images, None)
    with pytest.raises(UserError, match="class 'emu' has no train image"):
        problem.sort_sets(
            config, sources.ImageSet(images.images, images.labels, ("cat", "dog", "emu")), None
        )


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_test_pictures_of_a_folder_are_not_opened(tmp_path, memory):
    """The pictures of test/ are garbage, which any look at them finds."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for split, count in (("train", 5), ("test", 2)):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for number in range(count):
                path = tmp_path / "own" / split / name / f"{number}.png"
                Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
                if split == "test":
                    path.write_bytes(b"garbage")
    config = configure(
        data__source="folder", data__path=str(tmp_path / "own"), data__subset="as_is",
        data__memory=memory, data__cache=str(tmp_path / "cache"),
    )  # fmt: skip
    train, judges = problem.load_sets(config)
    assert train.class_counts().tolist() == [4, 4] and judges.class_counts().tolist() == [1, 1]
    assert len({*list_images(train), *list_images(judges)}) == 10
    config.data.judge = "test"
    with pytest.raises(UserError, match=r"0\.png"):
        problem.load_sets(config)


def test_everything_is_fitted_to_the_images_that_are_kept():
    """Breaks when judges take part in the whitening, or rare classes hardly count in the number."""
    config = configure(data__whiten="on")
    train, judges = problem.load_sets(config)
    found = problem.load_problem(config, train, judges)
    fitted = normalize.fit(train.images, whiten=True, zca_eps=config.data.zca_eps)
    np.testing.assert_allclose(
        found.train_images, normalize.apply(fitted, train.images), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found.test_images, normalize.apply(fitted, judges.images), rtol=1e-4, atol=1e-5
    )
    assert found.class_counts == tuple(np.bincount(train.labels))
    assert found.test_counts.tolist() == [1] * 10 != found.test.class_counts().tolist()
    assert found.fingerprint == sources.fingerprint(train, judges)


def test_plan_says_who_judges():
    config = configure()
    train, judges = problem.load_sets(config)
    network = types.SimpleNamespace(sizes=types.SimpleNamespace(num_parameters=7))
    said = plan.describe_data(config, train, judges, network, "here")
    assert f"judged on {len(judges.labels)} held-out training images, the test set is not" in said
    assert "test images" not in said


def test_every_class_counts_the_same(tmp_path):
    """Breaks when common classes decide the number of a run that long-tailed images judge."""
    accuracies, means = np.array([[90.0, 60.0, 30.0]]), []
    for judge in ("test", "held_out"):
        run = small_run.make_run(tmp_path)
        task = dataclasses.replace(
            run.problem, test=run.problem.test.take(np.array([0, 1, 2, 4])), judge=judge
        )
        run = dataclasses.replace(run, problem=task)
        path = run.workspace.accuracy / f"{experts.name_directory(run, 'classifier')}.json"
        files.write_sealed(path, {"num_experts": 2, "per_expert_per_class": accuracies.tolist()})
        means.append(look.recall_experts(run, ("classifier",))["classifier"]["mean"])
        row = Row("distilled", "title", "a set", 6, 5, load=None, per_network=True)
        found = {"per_seed_per_class": accuracies.tolist(), "rate": 0.1, "tuning": {}}
        means.append(evaluate._summarize(run, row, found)["mean"])
    assert means == pytest.approx([67.5, 67.5, 60.0, 60.0])


@pytest.mark.slow
def test_run_is_judged_by_held_out_images_alone(run, tmp_path, monkeypatch, capfd):
    """Breaks when a run reads the test set, hides what judged, or counts frequent classes more."""
    shut(monkeypatch)
    run(
        tmp_path / "run", data__judge="held_out", distill__method="random", net__name="mlp",
        evaluation__num_epochs=1, evaluation__baseline_rates=(0.05,),
    )  # fmt: skip
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    whole, _ = problem.load_sets(configure(data__judge="held_out"))
    count = report["held_out"]
    assert report["train_counts"] == np.bincount(whole.labels).tolist()
    said = capfd.readouterr().out
    assert f"judged on {count} held-out training images, the test set is not read" in said
    sentence = f"Judged on {count} held-out training images; the test set was not read"
    for page in ("report.md", "report.html"):
        assert sentence in (tmp_path / "run" / page).read_text()
    assert report["results"].keys() >= {"distilled", "full_real"}
    for row in report["results"].values():
        assert row["mean"] == pytest.approx(row["balanced"])
        assert row["mean"] == pytest.approx(np.mean(row["per_class"]))
