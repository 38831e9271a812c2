"""Handwritten digits made long-tailed: the whole method in a minute or two on a laptop.

The data come with scikit-learn (8x8 pixels, 10 classes), so nothing is downloaded. Method: Zhao et
al., "Distilling Long-tailed Datasets", CVPR 2025, https://arxiv.org/abs/2408.14506, with the exact
gradient.

    python -m ltdd_jax.main --config=configs/digits_lt.py

`--config=configs/digits_lt.py:smoke` takes the same path in seconds; its accuracies mean nothing.
There is no published accuracy; README.md has the measured ones.
"""

from ml_collections import ConfigDict

from ltdd_jax.config import base_config, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config; `argument` is empty or "smoke"."""
    variant, _ = parse_argument(argument, ("full", "smoke"))
    config = base_config()
    config.name = "digits_lt"
    config.data.source = "digits"
    config.data.imbalance_factor = 20.0
    config.net.width = 32
    config.net.depth = 2
    config.augment.strategy = "color_crop_cutout_scale_rotate"  # a mirrored digit is another sign

    experts = config.experts
    experts.num_experts = 8
    experts.representation.num_epochs = 30
    experts.representation.batch_size = 64
    experts.classifier.num_epochs = 5
    experts.classifier.batch_size = 64

    distill = config.distill
    distill.ipc = 2
    distill.num_iterations = 300
    distill.experts_per_file = 4
    distill.image_lr = 10.0
    distill.classifier.loss_weight = 1.0
    for phase in (distill.representation, distill.classifier):
        phase.student_steps = 20

    config.evaluation.num_epochs = 200
    config.runtime.checkpoint_steps = 100

    if variant == "smoke":
        config.name = "digits_lt_smoke"
        config.net.width = 16
        experts.num_experts = 2
        experts.representation.num_epochs = 6
        experts.classifier.num_epochs = 2
        distill.num_iterations = 10
        distill.representation.current_start_epoch = 2
        distill.representation.max_start_epoch = 4
        for phase in (distill.representation, distill.classifier):
            phase.student_steps = 4
        config.evaluation.num_epochs = 10
        config.evaluation.full_num_epochs = 5
        config.runtime.log_steps = 5
        config.runtime.checkpoint_steps = 5
    return config
