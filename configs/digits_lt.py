"""Handwritten digits made long-tailed: the whole method in a minute or two on a laptop.

The data come with scikit-learn (8x8 pixels, 10 classes), so nothing is downloaded. Method: Zhao et
al., "Distilling Long-tailed Datasets", CVPR 2025, https://arxiv.org/abs/2408.14506, with the exact
gradient.

    python -m ltdd_jax.main --config=configs/digits_lt.py

`--config=configs/digits_lt.py:smoke` takes the same path in seconds; its accuracies mean nothing.
The name of another method may follow, as in `digits_lt.py:mtt` or `digits_lt.py:smoke,herding`.
There is no published accuracy; README.md has the measured ones.
"""

from ml_collections import ConfigDict

from ltdd_jax.config import DEFAULT_METHOD, METHODS, base_config, parse_argument, use_preset

_HARD_LABELS = ("mtt", "tesla", "ftd")


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config; `argument` is e.g. "", "smoke" or "smoke,datm"."""
    variant, method, _ = parse_argument(argument, ("full", "smoke"), METHODS)
    config = base_config()
    words = ["digits_lt", *(["smoke"] if variant == "smoke" else []), *([method] if method else [])]
    config.name = "_".join(words)
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

    for asked in (config.teacher, config.observer):
        asked.num_epochs = 60
        asked.recipe = "logit_adjusted"
        asked.learning_rate = 0.1  # there are six steps in an epoch
    config.observer.nets = ("convnet_bn",)

    distill, trajectory = config.distill, config.trajectory
    distill.ipc = 2
    trajectory.num_iterations = 300
    trajectory.experts_per_file = 4
    trajectory.image_lr = 10.0
    trajectory.classifier.loss_weight = 1.0
    for phase in (trajectory.representation, trajectory.classifier):
        phase.student_steps = 20

    gradient, distribution, dream = (
        config.gradient_matching,
        config.distribution_matching,
        config.dream,
    )
    gradient.num_networks = 100
    gradient.image_steps = 5
    gradient.training_epochs = 10
    distribution.num_iterations = 500
    distribution.queue_size = 20
    dream.num_networks = 10
    dream.inner_steps = 50
    dream.num_clusters = 32
    dream.training_images = 256
    dream.training_batch_size = 64
    kernel = config.kernel
    kernel.first.num_iterations, kernel.second.num_iterations = 100, 400
    kernel.batch_size = 100
    kernel.real_augmentation = "crop"
    kernel.step_size = 0.03
    for cropping in (config.crops, config.recovery):
        cropping.min_area = 0.5  # of 8 x 8 pixels
    config.recovery.view_min_area = 0.5
    config.recovery.flip = False
    config.recovery.jitter = 1
    config.recovery.num_steps = 200
    if method == "edc":  # several, in turn
        config.observer.nets = ("convnet_bn", "convnet_bn")

    config.evaluation.num_epochs = 200
    config.evaluation.full_num_epochs = 100  # of 417 images: as good as 200, in half the time
    config.evaluation.baseline_rates = (0.01, 0.03, 0.1)
    config.runtime.checkpoint_steps = 100

    if variant == "smoke":
        config.net.width = 16
        experts.num_experts = 2
        experts.representation.num_epochs = 6
        experts.classifier.num_epochs = 2
        for asked in (config.teacher, config.observer):
            asked.num_epochs = 4
        trajectory.num_iterations = 10
        trajectory.representation.current_start_epoch = 2
        trajectory.representation.max_start_epoch = 4
        for phase in (trajectory.representation, trajectory.classifier):
            phase.student_steps = 4
        gradient.num_networks, gradient.image_steps, gradient.training_epochs = 5, 2, 2
        distribution.num_iterations = 10
        distribution.queue_size, distribution.queue_interval = 4, 3
        distribution.training_steps = 2
        dream.num_networks, dream.inner_steps, dream.cluster_interval = 2, 5, 5
        kernel.first.num_iterations, kernel.second.num_iterations = 5, 10
        kernel.first.pool_size = kernel.second.pool_size = 2
        config.recovery.num_steps = 10
        config.evaluation.num_epochs = 10
        config.evaluation.full_num_epochs = 5
        config.student.num_epochs = 10
        config.runtime.log_steps = 5
        config.runtime.checkpoint_steps = 5
    use_preset(config, method or DEFAULT_METHOD)
    if method in _HARD_LABELS:
        trajectory.image_lr = 1.0  # without class weights gradients are larger: 10 diverges
    return config
