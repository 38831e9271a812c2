"""Breaks when a preset has another number than its paper, or does not fit a published cell."""

import importlib.util
import pathlib

import pytest

from ltdd_jax import config as configs

ROOT = pathlib.Path(__file__).resolve().parents[1]


ALL = None  # all synthetic images
# Student steps, expert epochs, start epochs [first, last), batch, image rate, step size's rate,
# first step size. Typed from the sources named in `presets`.
MTT = {
    ("cifar10", 1): (50, 2, (0, 2), ALL, 100, 1e-7, 0.01),
    ("cifar10", 10): (30, 2, (0, 20), ALL, 100, 1e-5, 0.001),
    ("cifar10", 50): (30, 2, (0, 40), ALL, 1000, 1e-5, 0.001),
    ("cifar100", 1): (20, 3, (0, 20), ALL, 1000, 1e-5, 0.01),
    ("cifar100", 10): (20, 2, (0, 20), ALL, 1000, 1e-5, 0.01),
    ("cifar100", 50): (80, 2, (0, 40), 125, 1000, 1e-5, 0.01),
}
TESLA = MTT | {("cifar10", 1): (50, 2, (0, 5), ALL, 1000, 1e-7, 0.01)}
FTD = {
    ("cifar10", 1): (50, 2, (0, 2), ALL, 100, 1e-7, 0.01),
    ("cifar10", 10): (30, 2, (0, 20), ALL, 100, 1e-5, 0.001),
    ("cifar10", 50): (30, 2, (0, 40), ALL, 1000, 1e-5, 0.01),
    ("cifar100", 1): (40, 3, (0, 20), ALL, 1000, 1e-5, 0.01),
    ("cifar100", 10): (20, 2, (0, 40), ALL, 1000, 1e-5, 0.01),
    ("cifar100", 50): (80, 2, (0, 40), 1000, 1000, 1e-5, 0.01),
    ("tiny_imagenet", 1): (30, 2, (0, 10), ALL, 1e4, 1e-4, 0.01),
    ("tiny_imagenet", 10): (20, 2, (0, 40), 500, 1e4, 1e-4, 0.01),
}
DATM = {
    ("cifar10", 1): (80, 2, (0, 4), 10, 100, 1e-7, 0.01),
    ("cifar10", 10): (80, 2, (0, 20), 100, 100, 1e-5, 0.01),
    ("cifar10", 50): (80, 2, (0, 40), 500, 1000, 1e-5, 0.01),
    ("cifar100", 1): (40, 3, (0, 20), 1000, 1000, 1e-5, 0.01),
    ("cifar100", 10): (80, 2, (0, 50), 1000, 1000, 1e-5, 0.01),
    ("cifar100", 50): (80, 2, (20, 70), 1000, 1000, 1e-5, 0.01),
    ("tiny_imagenet", 1): (40, 2, (0, 20), 1000, 1e4, 1e-4, 0.01),
    ("tiny_imagenet", 10): (40, 2, (10, 50), 500, 100, 1e-4, 0.01),
    ("tiny_imagenet", 50): (20, 2, (40, 70), 1000, 100, 1e-4, 0.01),
}
# GSAM's alpha and the decay of the mean images.
FTD_MORE = {
    ("cifar10", 1): (0.3, 0.9999),
    ("cifar10", 10): (0.3, 0.9995),
    ("cifar10", 50): (1.0, 0.999),
    ("cifar100", 1): (1.0, 0.9995),
    ("cifar100", 10): (1.0, 0.9995),
    ("cifar100", 50): (1.0, 0.999),
    ("tiny_imagenet", 1): (1.0, 0.999),
    ("tiny_imagenet", 10): (1.0, 0.999),
}
# Upper start epoch at first and iterations over which it grows (None: it does not), rate of the
# labels, first images, threshold.
DATM_MORE = {
    ("cifar10", 1): (None, 5, "correct", 1.1),
    ("cifar10", 10): ((10, 1000), 2, "correct", 1.0),
    ("cifar10", 50): ((20, 2000), 2, "correct", 1.0),
    ("cifar100", 1): ((10, 1000), 10, "correct", 1.0),
    ("cifar100", 10): ((30, 2000), 10, "correct", 1.0),
    ("cifar100", 50): (None, 10, "real", 1.0),
    ("tiny_imagenet", 1): ((15, 2000), 10, "correct", 1.0),
    ("tiny_imagenet", 10): (None, 10, "correct", 1.0),
    ("tiny_imagenet", 50): (None, 10, "correct", 1.0),
}
NUM_CLASSES = {"cifar10": 10, "cifar100": 100, "tiny_imagenet": 200}
ROWS = [
    (name, *cell, table[cell])
    for name, table in (("mtt", MTT), ("tesla", TESLA), ("ftd", FTD), ("datm", DATM))
    for cell in table
]


def lay_over(name, source, ipc):
    config = configs.base_config()
    config.data.source, config.distill.ipc = source, ipc
    configs.use_preset(config, name)
    return config


@pytest.mark.parametrize(("name", "source", "ipc", "row"), ROWS)
def test_published_numbers(name, source, ipc, row):
    """Breaks on a typing error in the tables of `presets`."""
    config = lay_over(name, source, ipc)
    settings, phase = config.trajectory, config.trajectory.representation
    steps, epochs, starts, batch, image_lr, step_size_lr, step_size = row
    assert phase.student_steps == steps and settings.expert_epochs == epochs
    assert (phase.min_start_epoch, phase.max_start_epoch) == starts
    rows = ipc * NUM_CLASSES[source]
    assert settings.batch_size >= rows if batch is ALL else settings.batch_size == batch
    assert (settings.image_lr, settings.step_size_lr) == (image_lr, step_size_lr)
    assert settings.initial_step_size == step_size
    assert settings.image_momentum == settings.step_size_momentum == 0.5
    assert settings.class_weight_offset == 0 and settings.num_shards == 1
    assert settings.pairs_per_iteration == 1
    cell = (source, ipc)
    experts = config.experts.representation
    gsam = {"mtt": None, "tesla": None, "ftd": FTD_MORE.get(cell, [0.0])[0], "datm": 0.3}[name]
    assert (experts.rho, experts.alpha) == ((0.0, 0.0) if gsam is None else (0.01, gsam))
    assert settings.image_ema == (FTD_MORE[cell][1] if name == "ftd" else 0.0)
    if name == "datm":
        growth, label_lr, images, threshold = DATM_MORE[cell]
        assert phase.sequential == (growth is not None)
        assert growth in (None, (phase.current_start_epoch, phase.expansion_end))
        assert (settings.label_lr, settings.label_momentum) == (label_lr, 0.9)
        assert (settings.initial_images, settings.skip_threshold) == (images, threshold)
        assert settings.scanned_experts == "all"
    else:
        assert (settings.initial_images, settings.skip_threshold) == ("real", 0.0)
        assert not phase.sequential


@pytest.mark.parametrize(
    ("name", "num_iterations", "epochs", "evaluation_batch", "gradient", "labels"),
    [
        ("mtt", 5001, 50, 256, "exact", "hard"),
        ("tesla", 10001, 50, 256, "two_pass", "hard"),
        ("ftd", 5001, 50, 256, "exact", "hard"),
        ("datm", 10001, 100, 128, "exact", "soft"),
    ],
)
def test_protocol_of_the_older_methods(
    name, num_iterations, epochs, evaluation_batch, gradient, labels
):
    """The programs count iterations from 0 to the printed number inclusive."""
    config = lay_over(name, "cifar10", 10)
    settings, experts = config.trajectory, config.experts.representation
    assert settings.num_iterations == num_iterations
    assert (settings.gradient, settings.labels) == (gradient, labels)
    assert config.evaluation.batch_size == evaluation_batch
    assert (experts.num_epochs, experts.batch_size, experts.learning_rate) == (epochs, 256, 0.01)
    assert (experts.momentum, experts.weight_decay) == (0.0, 0.0) and experts.adaptive
    assert config.experts.num_experts == 100
    assert settings.representation.matched == "all"
    assert not settings.representation.class_weighted
    assert settings.representation.loss_weight == 1 and settings.classifier.loss_weight == 0


def test_numbers_of_ten_images_serve_for_twenty():
    """Breaks when a cell of 20 images per class falls back on settings of another method."""
    of_ten, of_twenty = (lay_over("datm", "cifar10", ipc) for ipc in (10, 20))
    of_twenty.distill.ipc = 10
    assert of_ten == of_twenty


def load_config(name, argument):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def test_parts_of_the_method_take_the_rest_of_its_cell():
    """Including the weight of a phase; breaks when an ablation changes more than one thing."""
    for name, missing in (
        ("dam", {"classifier.loss_weight", "representation.matched", "label_experts"}),
        ("ed", {"representation.class_weighted"}),
    ):
        whole = load_config("cifar10_lt", "if100_ipc10").trajectory.to_dict()
        part = load_config("cifar10_lt", f"if100_ipc10,{name}").trajectory.to_dict()
        assert differences(whole, part) == missing


def differences(a, b, prefix=""):
    found = set()
    for key in a:
        if isinstance(a[key], dict):
            found |= differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            found.add(f"{prefix}{key}")
    return found


@pytest.mark.parametrize("name", list(configs.METHODS))
def test_every_preset_fits_every_cell(name):
    """Breaks when a preset asks for epochs that its experts do not have."""
    for factor in (10, 50, 100, 200):
        for ipc in (10, 20, 50):
            configs.validate(load_config("cifar10_lt", f"if{factor}_ipc{ipc},{name}"))
    for factor in (10, 20):
        for ipc in (10, 20, 50):
            configs.validate(load_config("cifar100_lt", f"if{factor}_ipc{ipc},{name}"))
