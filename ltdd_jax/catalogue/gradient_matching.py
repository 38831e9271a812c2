"""Gradient matching: DC and DSA, with the numbers of the authors' program."""

from ltdd_jax import families
from ltdd_jax.presets import Preset
from ltdd_jax.rules import FREE, MOMENTUM, POSITIVE, Field, at_least, one_of

# Images per class -> steps of the images under one network, epochs of training between two.
_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
_EVALUATED = ("cifar10", "cifar100")

SETTINGS = {
    "num_networks": Field(
        1001, at_least(1), "Random networks, one after the other (published: 0 to 1000 inclusive)."
    ),
    "image_steps": Field(
        10,
        at_least(1),
        "Steps of the images under each network; an iteration of the run is one of them "
        "(published: as many as images per class).",
    ),
    "training_epochs": Field(
        50,
        at_least(0),
        "Epochs that the network is trained on the synthetic set between two of these steps.",
    ),
    "training_batch_size": Field(256, at_least(1), "Synthetic images per step of that training."),
    "network_lr": Field(0.01, POSITIVE, "Plain SGD of the network (published: 0.01)."),
    "batch_size": Field(
        256, at_least(1), "Real images of each class per step; fewer where there are fewer."
    ),
    "augmented": Field(
        True, FREE, "Differentiable Siamese augmentation of real and synthetic images (DSA)."
    ),
    "initial_images": Field("real", one_of("real", "noise"), "DSA: real; DC: noise."),
    "image_lr": Field(0.1, at_least(0), "SGD, images (published: 0.1)."),
    "image_momentum": Field(0.5, MOMENTUM, "SGD, images (published: 0.5)."),
    "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
}


def _publish(evaluation: dict) -> dict:
    """(data source, images per class) -> fields.

    The loops depend on the images per class alone; the evaluation is that of the papers' data.
    """
    evaluation = {"evaluation.batch_size": 256, **evaluation}
    return {
        (source, ipc): {
            "gradient_matching.image_steps": outer,
            "gradient_matching.training_epochs": inner,
            **(evaluation if source in _EVALUATED else {}),
        }
        for source in (*_EVALUATED, "fashion_mnist", "tiny_imagenet", "imagenet")
        for ipc, (outer, inner) in _LOOPS.items()
    }


families.register(
    "gradient_matching",
    builder="ltdd_jax.distill.gradient_matching:make_method",
    settings=SETTINGS,
    methods={
        "dc": Preset(
            "gradient_matching",
            "DC",
            "Zhao, Mopuri and Bilen, ICLR 2021, arXiv 2006.05929",
            {"gradient_matching.augmented": False, "gradient_matching.initial_images": "noise"},
            _publish({"evaluation.num_epochs": 300, "augment.strategy": ""}),
        ),
        "dsa": Preset(
            "gradient_matching",
            "DSA",
            "Zhao and Bilen, ICML 2021, arXiv 2102.08259",
            {"gradient_matching.augmented": True, "gradient_matching.initial_images": "real"},
            _publish({"evaluation.num_epochs": 1000}),
        ),
    },
)
