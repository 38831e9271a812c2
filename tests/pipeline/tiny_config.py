"""The whole method in a second of computing: digits, two experts, few steps. Also a config file.

python -m ltdd_jax.main --config=tests/pipeline/tiny_config.py --workdir=DIR
"""

from ml_collections import ConfigDict

from ltdd_jax.config import base_config


def get_config() -> ConfigDict:
    """Every loop saves several times; nothing is learned."""
    config = base_config()
    config.name = "tiny"
    config.data.imbalance_factor = 20.0
    config.net.width = 4
    config.net.depth = 1
    config.augment.strategy = "color"

    experts = config.experts
    experts.num_experts = 2
    for stage, num_epochs in ((experts.representation, 5), (experts.classifier, 3)):
        stage.num_epochs = num_epochs
        stage.batch_size = 128

    distill, trajectory = config.distill, config.trajectory
    distill.ipc = 1
    distill.keep_steps = 3
    trajectory.num_iterations = 7
    trajectory.expert_epochs = 1
    trajectory.batch_size = 6
    trajectory.image_lr = 1.0
    for phase in (trajectory.representation, trajectory.classifier):
        phase.student_steps = 2
    trajectory.representation.current_start_epoch = 1
    trajectory.representation.max_start_epoch = 4

    config.evaluation.num_seeds = 2
    config.evaluation.num_epochs = 5
    config.evaluation.full_num_epochs = 1
    config.evaluation.baseline_rates = (0.02, 0.05)
    config.evaluation.extra_rows = ()
    config.student.num_epochs = 4

    runtime = config.runtime
    runtime.log_steps = 3
    runtime.checkpoint_steps = 2
    runtime.checkpoint_epochs = 2
    runtime.checkpoint_minutes = 1e-9  # evaluation saves after every piece
    runtime.snapshot_cache_mb = 1
    return config
