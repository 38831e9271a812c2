"""SRe2L, EDC and RLDD: images recovered from trained observers."""

from typing import Any

from ltdd_jax import families
from ltdd_jax.catalogue import crops
from ltdd_jax.presets import Preset
from ltdd_jax.rules import FREE, MOMENTUM, POSITIVE, Field, at_least, one_of, within

SETTINGS = {
    "num_steps": Field(
        75,
        at_least(1),
        "Adam steps for each batch of images (EDC, RLDD: 75 for CIFAR-10, 2000 for CIFAR-100 and "
        "Tiny-ImageNet; SRe2L: 1000).",
    ),
    "batch_size": Field(
        100, at_least(1), "Images that are optimised together, at most (EDC, RLDD: 100)."
    ),
    "batch_order": Field(
        "class_major",
        one_of("class_major", "one_per_class"),
        "class_major: batches of one class after the other (EDC, RLDD); one_per_class: a batch has "
        "one image of each class (SRe2L).",
    ),
    "initial_images": Field(
        "crops",
        one_of("noise", "real", "crops"),
        "noise (SRe2L); real images (EDC); crops that a teacher recognises, in rounds (RLDD).",
    ),
    **crops.CROPS,
    "images_per_class": Field(
        0, at_least(0), "Random real images of each class that are cropped; 0 is all (RLDD: all)."
    ),
    "image_lr": Field(
        0.05, at_least(0), "Adam on the images, cosine to 0 (EDC, RLDD: 0.05; SRe2L: 0.25)."
    ),
    "first_decay": Field(0.5, MOMENTUM, "Adam's first decay (all: 0.5)."),
    "second_decay": Field(0.9, MOMENTUM, "Adam's second decay (all: 0.9)."),
    "statistics_weight": Field(
        0.01, at_least(0), "Weight of the distance of the statistics in the loss (all: 0.01)."
    ),
    "first_layer_weight": Field(
        10.0, at_least(0), "Weight of the first layer's distance; others have 1 (all: 10)."
    ),
    "layers": Field(
        "all",
        one_of("norm", "all"),
        "Whose inputs are followed: norms (SRe2L); all: convolutions too, also in patches of 4 x 4 "
        "pixels (EDC, RLDD).",
    ),
    "ema": Field(
        0.8,
        MOMENTUM,
        "Decay of the running averages of the batches' statistics (EDC, RLDD: 0.8; SRe2L: 0).",
    ),
    "class_weight": Field(
        0.5,
        within(0, 1),
        "Share of the distance to the statistics of the batch's classes (EDC, RLDD: 0.5; SRe2L: "
        "0); the rest is the distance to those of all classes.",
    ),
    "targets": Field(
        "balanced",
        one_of("running", "balanced"),
        "Statistics of all classes. running: the running ones of the batch norms, and for other "
        "layers those of the training images (SRe2L, EDC); balanced: the uniform mean over classes "
        "(RLDD's recalibration).",
    ),
    "class_statistics": Field(
        "pooled",
        one_of("pooled", "per_image"),
        "Variance of a class: pooled over all pixels of its images (RLDD's paper), or the mean of "
        "the variances in each image (EDC; RLDD's program).",
    ),
    "variances": Field(
        "mean",
        one_of("mean", "mixture"),
        "Variance of several classes: the mean of theirs (EDC, RLDD), or that of their mixture, "
        "which the differences between the class means enlarge.",
    ),
    "augmentation": Field(
        "crop",
        one_of("crop", "roll"),
        "Of the whole batch in each step. crop: one resized crop (EDC, RLDD); roll: moved around "
        "by up to jitter pixels (SRe2L).",
    ),
    "view_min_area": Field(
        0.08,
        crops.SHARE,
        "Smallest share of the image in augmentation=crop (EDC, RLDD: 0.08 for CIFAR-10, 0.5 for "
        "CIFAR-100 and Tiny-ImageNet).",
    ),
    "flip": Field(True, FREE, "Mirror every other batch in augmentation=crop (EDC, RLDD: yes)."),
    "jitter": Field(4, at_least(0), "Most pixels of augmentation=roll (SRe2L: 4)."),
    "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
}

_SOURCES = ("cifar10", "cifar100", "tiny_imagenet")
_IPCS = (1, 10, 50)


def _for_all(**settings: Any) -> dict[str, Any]:
    return {f"recovery.{name}": value for name, value in settings.items()}


def _observed_by(*nets: str, **numbers: Any) -> dict[str, Any]:
    """Observers that nothing was done for the tail of, as published."""
    return {f"observer.{name}": value for name, value in {"nets": nets, **numbers}.items()}


_PLAIN = {"observer.recipe": "plain"}
_EDC = _for_all(
    batch_order="class_major",
    layers="all",
    class_weight=0.5,
    augmentation="crop",
    image_lr=0.05,
)
# The authors' branches for CIFAR-10 and CIFAR-100; Tiny-ImageNet takes the numbers of CIFAR-100.
_NUMBERS = {
    (source, ipc): _for_all(
        num_steps=75 if source == "cifar10" else 2000,
        view_min_area=0.08 if source == "cifar10" else 0.5,
        batch_size=100,
        ema=0.8,
    )
    for source in _SOURCES
    for ipc in _IPCS
}
# EDC has eight weak observers; these are the architectures among them and beside them that there
# are here. Published are the 5 epochs for CIFAR-10, the other numbers are our choice.
_WEAK = {"learning_rate": 0.05, "batch_size": 128, "weight_decay": 5e-4}
_EDC_NUMBERS = {
    (source, ipc): numbers
    | _observed_by(
        *("resnet18_bn", "convnet_bn", "vgg11_bn", "alexnet_bn"),
        num_epochs=5 if source == "cifar10" else 20,
        **_WEAK,
    )
    for (source, ipc), numbers in _NUMBERS.items()
}
_RLDD_NUMBERS = {
    (source, ipc): numbers
    | {"observer.nets": ("resnet18_bn",) if source == "tiny_imagenet" else ("resnet32_bn",)}
    for (source, ipc), numbers in _NUMBERS.items()
}
# Published for CIFAR-100, the observer's batch size apart; the others take the same (our choice).
_SQUEEZED = {"num_epochs": 200, "learning_rate": 0.1, "batch_size": 128, "weight_decay": 5e-4}
_SRE2L_NUMBERS = {
    (source, ipc): _for_all(num_steps=1000, batch_size=100, jitter=4)
    | _observed_by("resnet18_bn", **_SQUEEZED)
    for source in _SOURCES
    for ipc in _IPCS
}

families.register(
    "recovery",
    builder="ltdd_jax.distill.recovery:make_method",
    settings=SETTINGS,
    methods={
        "sre2l": Preset(
            "recovery",
            "SRe2L",
            "Yin et al., NeurIPS 2023",
            _PLAIN
            | _for_all(
                initial_images="noise",
                batch_order="one_per_class",
                layers="norm",
                ema=0.0,
                class_weight=0.0,
                targets="running",
                augmentation="roll",
                image_lr=0.25,
            ),
            _SRE2L_NUMBERS,
        ),
        "edc": Preset(
            "recovery",
            "EDC",
            "Shao et al., NeurIPS 2024",
            _PLAIN
            | _EDC
            | _for_all(
                initial_images="real",
                targets="running",
                class_statistics="per_image",
                variances="mean",
            ),
            _EDC_NUMBERS,
        ),
        "rldd": Preset(
            "recovery",
            "RLDD",
            "Cui et al., AAAI 2026, arXiv 2511.18858",
            _EDC | _for_all(initial_images="crops", targets="balanced", images_per_class=0),
            _RLDD_NUMBERS,
        ),
    },
    check=crops.check_areas("recovery"),
)
