"""Published numbers of the matching methods, typed from the papers' settings.

Breaks when one of them changes in the catalogue. What is not listed is the same in all cells.
"""

import pytest

from ltdd_jax import presets
from tests.test_published import load_flat

GRADIENT = {
    "num_networks": 1001,  # 0 to 1000 inclusive
    "training_batch_size": 256,
    "network_lr": 0.01,
    "batch_size": 256,
    "image_lr": 0.1,
    "image_momentum": 0.5,
    "step_size": 0.01,
}
DISTRIBUTION = {
    "num_iterations": 20001,
    "batch_size": 256,
    "initial_images": "real",
    "image_momentum": 0.5,
    "step_size": 0.01,
}
QUEUE = DISTRIBUTION | {
    "networks": "queue",
    "image_lr": 0.2,
    "partition": 2,
    "initial_networks": 3,
    "queue_size": 100,
    "queue_interval": 30,
    "trained_members": 2,
    "training_steps": 10,
    "training_batch_size": 256,
    "network_lr": 0.01,
    "network_momentum": 0.9,
    "network_weight_decay": 5e-4,
}
DREAM = {
    "num_networks": 2000,
    "inner_steps": 100,
    "cluster_interval": 10,
    "num_clusters": 128,
    "partition": 2,
    "decoded_batch_size": 128,
    "augment_always": "color_crop_cutout",
    "augment_one": "",
    "image_lr": 0.005,
    "image_momentum": 0.5,
    "training_images": 2000,
    "training_batch_size": 128,
    "cutmix_chance": 0.5,
    "network_lr": 0.01,
    "network_momentum": 0.9,
    "network_weight_decay": 5e-4,
    "step_size": 0.01,
}
PROTOCOL = {"num_epochs": 1000, "batch_size": 256}
# Method -> (section, numbers, fields of the section `evaluation`).
METHODS = {
    "dc": ("gradient_matching", GRADIENT | {"augmented": False, "initial_images": "noise"},
           {"num_epochs": 300, "batch_size": 256}),
    "dsa": ("gradient_matching", GRADIENT | {"augmented": True, "initial_images": "real"},
            PROTOCOL),
    "dm": ("distribution_matching",
           DISTRIBUTION | {"networks": "fresh", "partition": 1, "image_lr": 1.0}, PROTOCOL),
    "idm": ("distribution_matching", QUEUE, PROTOCOL),
    "dream": ("dream", DREAM, {}),
}  # fmt: skip
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
# (data, images per class): weight of the cross-entropy, and what is not as in QUEUE.
IDM = {
    ("cifar10", 1): (0.5, {"batch_size": 5000, "queue_interval": 5}),
    ("cifar10", 10): (0.5, {}),
    ("cifar10", 50): (0.1, {}),
    ("cifar100", 1): (0.5, {"batch_size": 5000, "queue_interval": 5}),
    ("cifar100", 10): (0.1, {"training_steps": 50}),
    ("cifar100", 50): (0.1, {}),
    ("tiny_imagenet", 1): (0.5, {}),
    ("tiny_imagenet", 10): (0.5, {}),
    ("tiny_imagenet", 50): (0.8, {"training_steps": 50}),
}


def assert_has(config, section, expected):
    found = {name: config[f"{section}.{name}"] for name in expected}
    assert found == expected


@pytest.mark.parametrize("method", METHODS)
def test_method_has_the_published_constants(method):
    config = load_flat("cifar10_lt", f"if100_ipc10,{method}")
    section, expected, evaluation = METHODS[method]
    assert_has(config, section, expected)
    assert_has(config, "evaluation", evaluation)
    assert (config["augment.strategy"] == "") == (method == "dc")
    if section == "gradient_matching":
        assert_has(config, section, {"image_steps": 10, "training_epochs": 50})


@pytest.mark.parametrize("method", ["dc", "dsa"])
@pytest.mark.parametrize("source", ["cifar10", "cifar100", "tiny_imagenet", "fashion_mnist"])
def test_loops_of_gradient_matching(source, method):
    """They depend on the images per class alone."""
    for ipc, (outer, inner) in LOOPS.items():
        chosen = presets.choose(method, source, ipc)
        assert chosen["gradient_matching.image_steps"] == outer
        assert chosen["gradient_matching.training_epochs"] == inner


@pytest.mark.parametrize("cell", IDM)
def test_cells_of_idm(cell):
    chosen = presets.choose("idm", *cell)
    weight, other = IDM[cell]
    assert chosen["distribution_matching.ce_weight"] == weight
    for name in ("batch_size", "queue_interval", "training_steps"):
        expected = other.get(name)
        assert chosen.get(f"distribution_matching.{name}") == expected, name
