"""Fields of the sections `teacher` and `observer`: networks that methods and labels ask.

Both have the same fields. Numbers are those of Cui et al., "Rethinking Long-tailed Dataset
Distillation", AAAI 2026 (arXiv 2511.18858), whose networks are trained as GLMC (Du et al., CVPR
2023) does.
"""

from collections.abc import Sequence
from typing import Any

from ltdd_jax.rules import FREE, MOMENTUM, POSITIVE, Field, Rule, at_least, one_of, within

_GLMC = {
    "weight_power": Field(
        0.8, at_least(0), "q of the class weights N_c^-q, which sum to the number of classes."
    ),
    "sampling_power": Field(
        0.8,
        at_least(0),
        "The partner that a picture is mixed with is of class c with probability ~ N_c to this "
        "power; 1 is natural sampling, 0 class-balanced.",
    ),
    "similarity": Field(1.0, at_least(0), "Weight of the two mixed views being alike (gamma)."),
}


def make_section(nets: Sequence[str], default: str, use: str) -> dict[str, Any]:
    """The fields of one kind of networks.

    Args:
      nets: names of the networks that there are.
      default: the one that is trained.
      use: what the networks are for, as the start of a sentence.
    """
    rule = Rule(
        lambda value: len(value) > 0 and all(name in nets for name in value),
        f"one or more of {', '.join(nets)}, such as ('{default}',)",
        tuple(nets),
    )
    return {
        "nets": Field(
            (default,),
            rule,
            f"{use}: networks that are trained for it, each for itself; a name may stand twice.",
        ),
        "width": Field(
            0,
            at_least(0),
            "Channels of a ConvNet, and of the first stage of a ResNet-32; 0 takes net.width for "
            "a ConvNet and 64 for a ResNet-32 (published: 128 and 64).",
        ),
        "resnet_width": Field(
            0,
            at_least(0),
            "Channels of the first stage of a ResNet-32 in place of width, which is that of a "
            "ConvNet beside it; 0 takes width.",
        ),
        "depth": Field(0, within(0, 8), "Blocks of a ConvNet; 0 takes net.depth (published: 3)."),
        "recipe": Field(
            "glmc",
            one_of("plain", "logit_adjusted", "balanced_softmax", "glmc"),
            "What is done about the long tail: plain is nothing; logit_adjusted and "
            "balanced_softmax shift the logits in the loss; glmc mixes pictures in two views and "
            "moves over to class weights (published: glmc).",
        ),
        "augment": Field(
            "crop_flip",
            one_of("crop_flip", "dsa", "none"),
            "crop_flip shifts by up to an eighth of the side and mirrors, if flip is among the "
            "operations of augment.strategy; dsa is augment.strategy; none leaves pictures alone.",
        ),
        "num_epochs": Field(200, at_least(1), "Epochs; the last one is used (published: 200)."),
        "batch_size": Field(
            64,
            at_least(1),
            "Images per step; the short batch of an epoch is left out (published: 64).",
        ),
        "learning_rate": Field(0.01, POSITIVE, "SGD, of the first epoch (published: 0.01)."),
        "schedule": Field(
            "cosine",
            one_of("cosine", "constant", "step"),
            "Of the learning rate over the epochs: cosine to 0, constant, or a tenth after 60 % "
            "and again after 80 % (published: cosine).",
        ),
        "momentum": Field(0.9, MOMENTUM, "SGD momentum (published: 0.9)."),
        "nesterov": Field(False, FREE, "Nesterov's momentum."),
        "weight_decay": Field(5e-3, at_least(0), "On every parameter (published: 5e-3)."),
        "tau": Field(1.0, at_least(0), "Strength of logit_adjusted; 1 is the class prior."),
        "glmc": _GLMC,
    }
