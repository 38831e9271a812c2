"""Breaks when SRe2L, EDC, RLDD or RDED has another number than its paper, or a mixed-up setting."""

import pytest

from ltdd_jax import config as configs
from ltdd_jax.types import UserError

# Steps, rate, images together, decay of the averages, smallest view. Typed from the papers'
# settings; SRe2L's are published for CIFAR-100.
NUMBERS = {
    ("sre2l", "cifar100"): (1000, 0.25, 100, 0.0, None),
    ("edc", "cifar10"): (75, 0.05, 100, 0.8, 0.08),
    ("edc", "cifar100"): (2000, 0.05, 100, 0.8, 0.5),
    ("edc", "tiny_imagenet"): (2000, 0.05, 100, 0.8, 0.5),
    ("rldd", "cifar10"): (75, 0.05, 100, 0.8, 0.08),
    ("rldd", "cifar100"): (2000, 0.05, 100, 0.8, 0.5),
    ("rldd", "tiny_imagenet"): (2000, 0.05, 100, 0.8, 0.5),
}
# What each method is: first images, order of the batches, layers, share of the classes, targets,
# variance of a class, augmentation.
KINDS = {
    "sre2l": ("noise", "one_per_class", "norm", 0.0, "running", None, "roll"),
    "edc": ("real", "class_major", "all", 0.5, "running", "per_image", "crop"),
    "rldd": ("crops", "class_major", "all", 0.5, "balanced", "pooled", "crop"),
}


# Networks, recipe, epochs, rate; EDC's rate and networks are ours.
OBSERVERS = {
    ("sre2l", "cifar100"): (("resnet18_bn",), "plain", 200, 0.1),
    ("edc", "cifar10"): (("resnet18_bn", "convnet_bn", "vgg11_bn", "alexnet_bn"), "plain", 5, 0.05),
    ("rldd", "cifar10"): (("resnet32_bn",), "glmc", 200, 0.01),
    ("rldd", "cifar100"): (("resnet32_bn",), "glmc", 200, 0.01),
    ("rldd", "tiny_imagenet"): (("resnet18_bn",), "glmc", 200, 0.01),
}


@pytest.mark.parametrize(("name", "source"), list(OBSERVERS))
def test_observers(name, source):
    """Breaks when the observers of one method are those of another."""
    found = lay_over(name, source, 10).observer
    expected = OBSERVERS[name, source]
    assert (found.nets, found.recipe, found.num_epochs, found.learning_rate) == expected
    assert (found.momentum, found.schedule) == (0.9, "cosine")
    assert found.weight_decay == (5e-3 if name == "rldd" else 5e-4)


def lay_over(name, source, ipc):
    config = configs.base_config()
    config.data.source, config.distill.ipc = source, ipc
    configs.use_preset(config, name)
    return config


@pytest.mark.parametrize("ipc", [1, 10, 20, 50])
@pytest.mark.parametrize(("name", "source"), list(NUMBERS))
def test_published_numbers(name, source, ipc):
    found = lay_over(name, source, ipc).recovery
    steps, rate, batch_size, ema, area = NUMBERS[name, source]
    assert (found.num_steps, found.image_lr, found.batch_size) == (steps, rate, batch_size)
    assert found.ema == ema and area in (None, found.view_min_area)
    assert (found.first_decay, found.second_decay) == (0.5, 0.9)
    assert (found.statistics_weight, found.first_layer_weight) == (0.01, 10.0)
    assert found.flip and found.jitter == 4


@pytest.mark.parametrize("name", list(KINDS))
def test_what_a_method_is(name):
    found = lay_over(name, "digits", 2).recovery
    images, order, layers, share, targets, variance, augmentation = KINDS[name]
    assert (found.initial_images, found.batch_order, found.layers) == (images, order, layers)
    assert (found.class_weight, found.targets) == (share, targets)
    assert variance in (None, found.class_statistics) and found.augmentation == augmentation
    # The same for all data: SRe2L starts from noise and has far to go.
    assert found.image_lr == (0.25 if name == "sre2l" else 0.05)


def test_crops_of_the_published_size():
    """RDED looks at 300 images of a class, RLDD at all."""
    rded, rldd = lay_over("rded", "cifar10", 10).crops, lay_over("rldd", "cifar10", 10).recovery
    for found, images in ((rded, 300), (rldd, 0)):
        assert (found.images_per_class, found.crops_per_image) == (images, 5)
        assert (found.min_area, found.max_area) == (0.08, 1.0)


@pytest.mark.parametrize(("name", "section"), [("rded", "crops"), ("rldd", "recovery")])
def test_areas_that_leave_no_crop_are_refused(name, section):
    config = lay_over(name, "digits", 2)
    config[section].max_area = 0.05
    with pytest.raises(UserError, match=rf"{section}\.min_area=0\.08 is above") as caught:
        configs.validate(config)
    assert "\n" not in str(caught.value)
