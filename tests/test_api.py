"""Breaks when the Python API gives another set than the files hold, or lets bad arrays through."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

import ltdd_jax
from ltdd_jax import api
from ltdd_jax.types import UserError
from tests.export.distilled import make_set

# Small enough for a test; everything a budget would choose is given.
SETTINGS = {
    "net.width": 4,
    "net.depth": 1,
    "augment.strategy": "",
    "experts.num_experts": 1,
    "experts.representation.num_epochs": 3,
    "experts.representation.batch_size": 8,
    "experts.classifier.num_epochs": 2,
    "experts.classifier.batch_size": 8,
    "trajectory.num_iterations": 2,
    "trajectory.representation.student_steps": 2,
    "trajectory.representation.max_start_epoch": 1,
    "trajectory.representation.current_start_epoch": 1,
    "trajectory.classifier.student_steps": 2,
    "trajectory.image_lr": 1.0,
    "evaluation.num_seeds": 2,
    "evaluation.num_epochs": 2,
    "evaluation.full_num_epochs": 1,
    "evaluation.baseline_rates": (0.05,),
}


def make_pictures(counts, seed=0):
    """Three classes of 6 x 6 pixels, each around a pattern of its own."""
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).integers(0, 200, (len(counts), 6, 6, 3))
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = generator.integers(0, 56, (len(labels), 6, 6, 3))
    return (patterns[labels] + noise).astype(np.uint8), labels


@pytest.fixture(scope="module")
def quickly():
    """Programs compile faster; results are compared with each other only."""
    before = jax.config.jax_debug_key_reuse
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", before)


@pytest.fixture(scope="module")
def made(tmp_path_factory, quickly):
    workdir = tmp_path_factory.mktemp("api") / "run"
    images, labels = make_pictures((12, 8, 5))
    distilled = ltdd_jax.distill_dataset(
        images, labels, images_per_class=2, workdir=str(workdir), class_names=("a", "b", "c"),
        settings=SETTINGS,
    )  # fmt: skip
    return workdir, distilled


def test_importing_the_package_leaves_jax_alone():
    code = "import sys, ltdd_jax; dir(ltdd_jax); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="nothing"):
        ltdd_jax.nothing  # noqa: B018


def test_distilled_set_is_what_the_directory_holds(made):
    workdir, distilled = made
    assert distilled.images.shape == (6, 6, 6, 3) and distilled.pixels.dtype == np.uint8
    assert distilled.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert distilled.class_names == ("a", "b", "c") and distilled.step_size > 0
    loaded = ltdd_jax.load_dataset(workdir)
    for name in ("images", "pixels", "labels", "label_logits"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(distilled, name))
    with np.load(workdir / "synthetic" / "synthetic.npz") as archive:
        np.testing.assert_array_equal(archive["images"], distilled.images)
    assert (workdir / "report.md").exists()


def test_held_out_pictures_are_not_trained_on(made):
    """25 pictures; a fifth of each class, at least one, is for the test."""
    workdir, _ = made
    report = (workdir / "report.json").read_text()
    assert '"train_counts": [\n    10,\n    7,\n    4\n  ]' in report


def test_whitening_is_that_of_training(made):
    workdir, distilled = made
    images, _ = make_pictures((3, 2, 2), seed=5)
    with np.load(workdir / "preprocessing.npz") as fitted:
        assert fitted.files  # read by `whiten`, whatever it holds
    white = distilled.whiten(images)
    assert white.shape == images.shape and white.dtype == np.float32
    np.testing.assert_allclose(distilled.whiten(distilled.pixels), distilled.images, atol=2.0)


def test_batches_are_one_pass_with_probabilities(made):
    _, distilled = made
    batches = list(distilled.batches(3, 4))
    assert [len(images) for images, _ in batches] == [4, 2]
    images = np.concatenate([images for images, _ in batches])
    assert sorted(images[:, 0, 0, 0].tolist()) == sorted(distilled.images[:, 0, 0, 0].tolist())
    np.testing.assert_allclose(np.concatenate([p for _, p in batches]).sum(axis=1), 1, atol=1e-6)
    again = [images for images, _ in distilled.batches(3, 4)]
    np.testing.assert_array_equal(again[0], batches[0][0])
    keyed = [images for images, _ in distilled.batches(jax.random.key(3), 4)]
    assert len(keyed) == 2


def test_evaluation_learns_an_easy_task(made):
    """Breaks when test pictures are not whitened or labels are mixed up."""
    _, distilled = made
    images, labels = make_pictures((20, 20, 20), seed=7)
    found = ltdd_jax.evaluate_dataset(
        distilled, images, labels, num_epochs=60, num_seeds=2, learning_rate=0.1
    )
    assert found["mean"] > 60 and len(found["per_seed"]) == 2 and "many" not in found


@pytest.mark.parametrize(
    ("network", "sizes", "expected"),
    [
        (None, {}, ("convnet_bn", {"width": 8, "depth": 2})),
        (None, {"width": 3}, ("convnet_bn", {"width": 3, "depth": 2})),
        ("convnet", {}, ("convnet", {})),
        ("mlp", {"width": 5}, ("mlp", {"width": 5})),
    ],
)
def test_networks_are_of_the_size_of_the_set_or_of_that_asked_for(
    made, monkeypatch, network, sizes, expected
):
    """Breaks when a set of a network other than the ConvNet is judged by another size of it."""
    _, distilled = made
    test = make_pictures((2, 2, 2))
    own = {"name": "convnet_bn", "width": 8, "depth": 2}
    built = []

    def build(name, *, image_shape, num_classes, **options):
        built.append((name, options))
        raise InterruptedError

    monkeypatch.setattr(api.nets, "build", build)
    with pytest.raises(InterruptedError):
        ltdd_jax.evaluate_dataset(
            dataclasses.replace(distilled, network=own), *test, network=network, **sizes
        )
    assert built == [expected]


def test_experts_are_found_again(made, capsys):
    workdir, _ = made
    images, labels = make_pictures((12, 8, 5))
    experts = ltdd_jax.train_experts(
        images, labels, workdir=str(workdir), images_per_class=2, class_names=("a", "b", "c"),
        settings=SETTINGS,
    )  # fmt: skip
    assert "representation experts: 1 of 1 are there" in capsys.readouterr().out
    assert experts.kinds == ("representation", "classifier")
    first, last = (experts.snapshot("representation", 0, epoch) for epoch in (0, -1))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (first, last)), strict=True))
    assert experts.num_epochs == {"representation": 3, "classifier": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"images": np.zeros((4, 6, 6, 3))}, "must be uint8"),
        ({"images": np.zeros((4, 6, 6, 2), np.uint8)}, "must be uint8"),
        ({"labels": np.zeros(3, int)}, "must be 4 whole numbers"),
        ({"labels": np.zeros(4)}, "must be 4 whole numbers"),
        ({"labels": np.array([0, 0, 1, -1])}, "must be 0 or more"),
        ({"labels": np.array([0, 0, 2, 2])}, "class '1' has no train image"),
        ({"labels": np.array([0, 0, 1, 2**40])}, "go up to 1099511627776, but there are 4 images"),
        ({"class_names": ["a"]}, "go up to 1, but there are 1 class names"),
        ({"method": "datmm"}, "method='datmm' is unknown: it must be one of mtt, tesla"),
        ({"images_per_class": "2"}, r"distill\.ipc=2 has the wrong type"),
        ({"seed": -1}, r"config\.seed=-1"),
        ({"budget": "short"}, "one of , quick, standard, thorough"),
        ({"settings": {"net.widht": 3}}, r"did you mean net\.width\?"),
        ({"settings": {"net.width": "wide"}}, "has the wrong type"),
        ({"test_images": np.zeros((2, 6, 6, 3), np.uint8)}, "belong together"),
    ],
)
def test_bad_arguments_give_one_sentence(arguments, expected, tmp_path):
    given = {"images": np.zeros((4, 6, 6, 3), np.uint8), "labels": np.array([0, 0, 1, 1])}
    with pytest.raises(UserError, match=expected) as caught:
        ltdd_jax.distill_dataset(**(given | arguments), workdir=str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (np.zeros((2, 4, 4, 3), int), [0, 1], "test_images must be uint8"),
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "test_images must be uint8"),
        (np.zeros((2, 5, 4, 3), np.uint8), [0, 1], r"are \[5, 4, 3\] each.* are \[4, 4, 3\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "must be 2 whole numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 2], "go up to 2, but there are 2 class names"),
    ],
)
def test_test_images_that_do_not_fit_are_refused(images, labels, expected):
    """Breaks when whole numbers of 64 bits, which whitening takes for 0 to 1, give an accuracy."""
    with pytest.raises(UserError, match=expected):
        ltdd_jax.evaluate_dataset(make_set("plain"), images, labels)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_seeds": 0}, "num_seeds=0 must be a whole number of 1 or more"),
        ({"batch_size": 0}, "batch_size=0 must be"),
        ({"width": 0}, "width=0 must be"),
        ({"num_epochs": 1.5}, r"num_epochs=1\.5 must be"),
        ({"train_counts": [5]}, "train_counts are 1 numbers, but the set has 2 classes"),
    ],
)
def test_numbers_that_no_evaluation_can_have_are_named(arguments, expected):
    """Breaks when no networks give an accuracy that is not a number, or counts a wrong group."""
    test = np.zeros((2, 4, 4, 3), np.uint8), [0, 1]
    with pytest.raises(UserError, match=expected):
        ltdd_jax.evaluate_dataset(make_set("plain"), *test, **arguments)


def test_names_and_numbers_may_be_those_of_numpy():
    """Breaks when names in an array, such as target_names of scikit-learn, are a traceback."""
    images, labels = make_pictures((4, 3))
    config, (train, test), _ = api._prepare(
        images, labels, np.int64(2), "random", "quick", None, np.int32(3), None, None,
        np.array(["a", "b"]), None,
    )  # fmt: skip
    assert train.class_names == test.class_names == ("a", "b")
    assert (config.distill.ipc, config.seed) == (2, 3)


def test_missing_set_is_named(tmp_path):
    with pytest.raises(UserError, match=r"synthetic\.npz is missing"):
        ltdd_jax.load_dataset(tmp_path)
