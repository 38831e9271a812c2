"""Settings of the labels of a finished set and of the students that learn from them.

Part of the table in `fields`. "RLDD" is Cui et al., AAAI 2026, in the form of its public program.
"""

from ltdd_jax.rules import (
    FREE,
    MOMENTUM,
    POSITIVE,
    Field,
    Rule,
    are_rates,
    at_least,
    is_range_of_shares,
    one_of,
)

LABELS = {
    "relabel": Field(
        "none",
        one_of("none", "experts", "teacher", "views"),
        "What the finished set is labelled by: none (what the method gave it), experts or teacher "
        "(mean logits of the classifier experts, or of the teachers, on each image), or views (the "
        "teachers' labels of augmented views, stored with what reproduces these). The images stay, "
        "nothing is distilled again.",
    ),
    "calibration": Field(
        "none",
        one_of("none", "adsa"),
        "Afterwards: adsa takes the share of the class prior out of the labels that makes them "
        "equally sure of every class (ADSA, NeurIPS 2025).",
    ),
    "views": Field(
        50, at_least(1), "Views of every image with relabel=views; students take them in turn."
    ),
    "view_dtype": Field(
        "float16", one_of("float16", "float32"), "Of the stored labels of the views."
    ),
}

STUDENT = {
    "num_epochs": Field(500, at_least(1), "Passes over the set, each over views of its own."),
    "batch_size": Field(25, at_least(1), "Images per step; the last batch may be smaller."),
    "optimizer": Field("sgd", one_of("sgd", "adamw"), "Of the students (RLDD: adamw)."),
    "learning_rates": Field(
        (0.025,),
        Rule(are_rates, "one or more numbers above 0, such as (0.01, 0.025)"),
        "Learning rates of the students; of several, one is chosen for all rows on held-out "
        "training images. A single rate is used as it is (RLDD: 0.001 with adamw).",
    ),
    "schedule": Field(
        "cosine",
        one_of("cosine", "steps"),
        "cosine falls to 0, steps halves the rate after 80, 90 and 95 % of the epochs (RLDD).",
    ),
    "momentum": Field(0.9, MOMENTUM, "SGD momentum."),
    "weight_decay": Field(5e-4, at_least(0), "On the weights (RLDD: 0.01 with adamw)."),
    "decay_vectors": Field(
        True, FREE, "Whether biases and the scales of norms decay too (RLDD: false)."
    ),
    "loss": Field(
        "kl",
        one_of("kl", "mse"),
        "Distance from the teacher's answer: kl with temperature, times its square, or mse, the "
        "mean squared difference of the logits (RLDD).",
    ),
    "temperature": Field(4.0, POSITIVE, "Divides the logits of student and teacher in loss=kl."),
    "hard_weight": Field(
        0.0,
        at_least(0),
        "Of the cross-entropy with the class of the unmixed image, added to the loss (RLDD: 0.025 "
        "on CIFAR-10).",
    ),
    "ema": Field(
        0.0, MOMENTUM, "Decay per step of the averaged student that is tested; 0 tests the last."
    ),
    "area": Field(
        (0.08, 1.0),
        Rule(is_range_of_shares, "two shares such as (0.08, 1.0), the first not above the second"),
        "Smallest and largest share of the picture in a random resized crop.",
    ),
    "flip": Field(
        "auto",
        one_of("auto", "on", "off"),
        "Mirror every other picture; auto does so where augment.strategy mirrors.",
    ),
    "cutmix": Field(
        1.0,
        at_least(0),
        "Both parameters of the Beta distribution of the share that cutmix keeps; 0 mixes nothing.",
    ),
}
