"""Fields of the section `evaluation`; part of the table in `fields`."""

from collections.abc import Sequence
from typing import Any

from ltdd_jax.rules import (
    FREE,
    MOMENTUM,
    POSITIVE,
    Field,
    Rule,
    are_rates,
    are_words,
    are_words_of,
    at_least,
)

PROTOCOLS = ("sgd", "adam")
AT_BASELINE_RATE = "initial_at_baseline_rate"
ROWS = ("distilled", "initial", AT_BASELINE_RATE, "random_real", "full_real")

_COMMON: dict[str, Any] = {
    "blocks": Field(
        ("i",),
        Rule(are_words_of("i", "ii"), "('i',), ('ii',) or ('i', 'ii')", ("i", "ii")),
        "i trains on a class or one soft label per image; ii asks a teacher for the label of every "
        "augmented picture, or takes the stored ones, as the section student says. The two are "
        "never compared in one table.",
    ),
    "rows": Field(
        ROWS,
        Rule(are_words_of(*ROWS), f"some of {', '.join(ROWS)}, such as ('random_real',)", ROWS),
        "Kinds of rows that are evaluated. distilled: the set with all that is made of it; "
        "initial: what it started from, in block i at the learning rate of the final set; "
        "initial_at_baseline_rate: the same in block i at the rate of random real images; "
        "random_real: these; full_real: the whole training set. A row whose learning rate another "
        "one takes is evaluated too.",
    ),
    "extra_rows": Field(
        ("hard", "8bit"),
        Rule(
            are_words_of("hard", "8bit", allow_none=True),
            "some of 'hard' and '8bit', such as ('hard', '8bit') or ()",
            ("hard", "8bit"),
        ),
        "Further rows of block i: the distilled images with hard labels, which the measures of "
        "DD-Ranking need, and after their pixels were rounded to 8 bits.",
    ),
    "num_seeds": Field(
        5, at_least(1), "Fresh networks per row; accuracies are mean and std over them."
    ),
    "num_epochs": Field(
        1000,
        at_least(1),
        "E in the protocol: epochs 0 to E inclusive, rate divided by 10 after E // 2 + 1 "
        "(paper: 1000).",
    ),
    "batch_size": Field(128, at_least(1), "Images per step (paper: 128)."),
    "momentum": Field(0.9, MOMENTUM, "SGD momentum (paper: 0.9)."),
    "weight_decay": Field(5e-4, at_least(0), "On every parameter (paper: 5e-4)."),
    "baseline_rates": Field(
        (0.005, 0.01, 0.02, 0.05, 0.1),
        Rule(are_rates, "one or more numbers above 0, such as (0.01, 0.05)"),
        "Learning rates for real images; one is chosen on held-out training images. A single rate "
        "is used as it is (paper: 0.01).",
    ),
    "held_out": Field(
        0.2,
        Rule(lambda value: 0 < value <= 0.5, "above 0 and at most 0.5"),
        "Share of the training images of each class that judges the rates, at least one image.",
    ),
    "tuning_epochs": Field(
        0, at_least(0), "E while the rates are compared; 0 is that of the row itself."
    ),
    "full_num_epochs": Field(
        0, at_least(0), "E for the whole training set; 0 is num_epochs. The row names it."
    ),
    "curve": Field(False, FREE, "Also evaluate the sets kept every distill.keep_steps iterations."),
    "keep_networks": Field(False, FREE, "Keep the trained evaluation networks."),
}


def make_section(nets: Sequence[str]) -> dict[str, Any]:
    """All fields of the section.

    Args:
      nets: names of the networks that there are.
    """
    return {
        **_COMMON,
        "networks": Field(
            "",
            Rule(
                lambda value: not value or are_words(value, nets),
                f"names joined by commas, of {', '.join(nets)}; or empty",
                tuple(nets),
            ),
            "Further networks to train on the distilled set and on random real images, joined by "
            "commas, at the rates of net.name: whether the set serves others too. They have their "
            "published sizes.",
        ),
        "protocols": Field(
            "sgd",
            Rule(
                lambda value: are_words(value, PROTOCOLS),
                f"names joined by commas, of {', '.join(PROTOCOLS)}",
                PROTOCOLS,
            ),
            "How rows are trained on each network, joined by commas. sgd: as all other rows. adam: "
            "Adam at adam_rate, which rises linearly over half of the epochs and falls to 0 as a "
            "cosine (the released program's alternative).",
        ),
        "adam_rate": Field(1e-3, POSITIVE, "Highest learning rate of the protocol adam (ours)."),
    }
