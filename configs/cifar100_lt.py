"""CIFAR-100-LT with the published settings of every cell.

Zhao et al., "Distilling Long-tailed Datasets", CVPR 2025, https://arxiv.org/abs/2408.14506

    python -m ltdd_jax.data.prepare cifar100 --data_dir=DIR
    python -m ltdd_jax.main --config=configs/cifar100_lt.py:if10_ipc10 --config.data.data_dir=DIR

After the colon, joined by commas: `ifFACTOR_ipcIMAGES` with factor 10, 20 or 50 and 10, 20 or 50
images per class (`if10_ipc10` when left out); the name of a method (`dam_ed`, the paper's, when
left out; its parts `dam` and `ed`; `mtt`, `tesla`, `ftd`, `datm` with the numbers of their own
papers; the selections `random`, `k_center`, `herding`, `graph_cut`, `k_medoids`; or any other);
`exact` for the exact gradient instead of the paper's two-pass one, for which the learning rates
were tuned; `as_published` for as many shards of the student as the released settings list GPUs
(docs/shards.md). Factor 50 has no released settings and takes those of factor 20 (our choice).

Cost: at factor 50 and 1 image per class the authors' program took 26 269 s for the experts and
29 328 s for the distillation on one RTX 3090, and 10.2, 12.1 and 15.8 GB of its memory at 10, 20
and 50 images per class (arXiv 2511.18858). Cells of one factor have the same experts: keep them
in one --workdir, each with a --set=NAME.

Published accuracy, top-1 % on the balanced test set. It is the best of 21 evaluations on that test
set; this program reports the last iterate. ltdd_jax/literature.py has the other methods' numbers.

    factor   ipc 10       ipc 20       ipc 50
        10   31.5 ± 0.2   37.5 ± 0.4   40.0 ± 0.1
        20   31.4 ± 0.5   35.1 ± 0.4   37.0 ± 0.7
        50   29.8 ± 0.3   31.9 ± 0.5   33.2 ± 0.5
"""

from ml_collections import ConfigDict

from ltdd_jax.config import (
    DEFAULT_METHOD,
    METHODS,
    base_config,
    find_published,
    parse_argument,
    use_preset,
)

# (imbalance factor, images per class): first and last + 1 start epoch, representation phase.
_CELLS = {
    (10, 10): (30, 50),
    (10, 20): (20, 70),
    (10, 50): (20, 70),
    (20, 10): (20, 70),
    (20, 20): (20, 70),
    (20, 50): (20, 70),
}
_CELLS |= {(50, ipc): _CELLS[20, ipc] for ipc in (10, 20, 50)}
# Devices that the released settings of each cell list; see docs/shards.md.
_GPUS = {(10, 10): 4, (10, 20): 6, (10, 50): 2, (20, 10): 6, (20, 20): 6, (20, 50): 6}


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config of one cell, e.g. "if10_ipc10" or "if10_ipc10,datm"."""
    cells = {f"if{factor}_ipc{ipc}": (factor, ipc) for factor, ipc in _CELLS}
    variant, method, modifiers = parse_argument(
        argument, list(cells), METHODS, ("exact", "as_published")
    )
    factor, ipc = cells[variant]

    config = base_config()
    config.name = "_".join(
        ["cifar100_lt", variant, *(m for m in (method,) if m), *sorted(modifiers)]
    )
    config.data.source = "cifar100"
    config.data.imbalance_factor = factor
    config.data.whiten = "on"
    config.data.normalize = True

    distill, trajectory = config.distill, config.trajectory
    distill.ipc = ipc
    trajectory.num_iterations = 10001
    trajectory.gradient = "exact" if "exact" in modifiers else "two_pass"
    trajectory.batch_size = 1000
    trajectory.initial_images = "real"
    trajectory.image_lr = 1000.0
    trajectory.label_lr = 10.0
    first, second = trajectory.representation, trajectory.classifier
    first.student_steps, second.student_steps = 40, 20
    first.min_start_epoch, first.max_start_epoch = _CELLS[factor, ipc]
    first.loss_weight, second.loss_weight = 1.0, 0.1
    if "as_published" in modifiers:
        trajectory.num_shards = find_published(_GPUS, factor, ipc)
    use_preset(config, method or DEFAULT_METHOD)
    return config
