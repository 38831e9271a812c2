"""Breaks when a folder of pictures needs more than its path, or a dry run leaves something."""

import importlib.util
import pathlib

import numpy as np
import pytest
from PIL import Image

from ltdd_jax import pipeline

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(argument):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "configs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


@pytest.fixture
def pictures(tmp_path):
    """Three classes of pictures of mixed sizes, without train and test."""
    generator = np.random.default_rng(0)
    for name, count in (("cat", 12), ("dog", 6), ("emu", 3)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            shape = (20 + number, 30, 3)
            picture = Image.fromarray(generator.integers(0, 255, shape, np.uint8))
            picture.save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


def plan(config, pictures, tmp_path, capsys, **more):
    config.data.path = str(pictures)
    pipeline.run(config, str(tmp_path / "run"), dry_run=True, **more)
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().out


def test_path_is_enough_for_a_plan(pictures, tmp_path, capsys, settings):
    text = plan(load("quick"), pictures, tmp_path, capsys)
    assert "data.image_size = 16 (pictures have a median side of" in text
    assert "has no test/: 4 of 21 pictures are held out" in text
    assert "net.width = 32 (usual for a quick run)" in text
    assert "experts.classifier.num_epochs = 5 (" in text
    assert "trajectory.classifier.student_steps = 20 (" in text
    assert "17 training images of 16x16x3 in 3 classes" in text and "cost: experts" in text


def test_what_is_given_stays(pictures, tmp_path, capsys, settings):
    config = load("standard,mtt")
    config.data.image_size, config.net.width, config.distill.ipc = 24, 8, 2
    keep = frozenset({"data.image_size", "net.width", "distill.ipc"})
    text = plan(config, pictures, tmp_path, capsys, keep=keep)
    assert "of 24x24x3" in text and "net.width =" not in text and "distill: mtt, 6 images" in text
    assert ".classifier." not in text  # whose experts and phase it has not
    assert (
        "student steps" in text and " + " not in text.partition("distill: ")[2].split(" student")[0]
    )
