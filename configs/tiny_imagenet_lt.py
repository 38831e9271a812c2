"""Tiny-ImageNet-LT (200 classes, 64x64) with the published settings of the cells that have them.

Zhao et al., "Distilling Long-tailed Datasets", CVPR 2025, https://arxiv.org/abs/2408.14506

    python -m ltdd_jax.main --config=configs/tiny_imagenet_lt.py:if20_ipc10 \
        --config.data.path=tiny-imagenet-200.zip

The path is the archive (http://cs231n.stanford.edu/tiny-imagenet-200.zip), a tar of its files or
the unpacked folder; without it the archive or folder is looked for in --config.data.data_dir, and
a set that TensorFlow Datasets prepared as `tiny_imagenet` too. The test set is val/.

After the colon, joined by commas: `ifFACTOR_ipcIMAGES` with factor 10, 20, 50 or 100 and 10, 20 or
50 images per class (`if10_ipc10` when left out); the name of a method (`dam_ed`, the paper's, when
left out); `exact` for the exact gradient instead of the paper's two-pass one; `as_published` for as
many shards of the student as the released settings list GPUs (docs/shards.md). Factors 50 and 100
have no released settings and take those of factor 20, but for the 1501 iterations at which the
released file of if20_ipc50 stops: there, 10001 (our choices).

Cost: whitening takes about 7 GB of memory and, estimated from parts, under ten minutes on two CPU
cores (docs/performance.md); the authors' program took more than 24 GB of GPU memory at 10 images
per class (arXiv 2511.18858). Cells of one factor have the same experts: keep them in one --workdir,
each with a --set=NAME.

Published accuracy, top-1 % on the balanced test set. It is the best of 21 evaluations on that test
set; this program reports the last iterate. ltdd_jax/literature.py has the other methods' numbers.

    factor   ipc 10       ipc 20
        10   26.0 ± 0.3   27.9 ± 0.2
        20   23.6 ± 0.3   25.5 ± 0.3
       100   17.1 ± 0.8   18.0 ± 0.5
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

# (imbalance factor, images per class): student steps of both phases; first and last + 1 start epoch
# of the representation phase; batch of the student; rate of the step size; iterations.
_CELLS = {
    (10, 10): (25, (10, 50), 500, 1e-4, 10001),
    (10, 20): (20, (10, 50), 500, 1e-4, 10001),
    (10, 50): (10, (40, 70), 1000, 1e-5, 10001),
    (20, 10): (25, (10, 50), 500, 1e-4, 10001),
    (20, 20): (20, (10, 50), 500, 1e-4, 10001),
    (20, 50): (10, (40, 70), 1000, 1e-5, 1501),
}
_CELLS |= {(f, ipc): (*_CELLS[20, ipc][:4], 10001) for f in (50, 100) for ipc in (10, 20, 50)}
# Devices that the released settings of each cell list; see docs/shards.md.
_GPUS = {(10, 10): 8, (10, 20): 8, (10, 50): 4, (20, 10): 8, (20, 20): 8, (20, 50): 6}


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config of one cell, e.g. "if10_ipc10" or "if10_ipc10,datm"."""
    cells = {f"if{factor}_ipc{ipc}": (factor, ipc) for factor, ipc in _CELLS}
    variant, method, modifiers = parse_argument(
        argument, list(cells), METHODS, ("exact", "as_published")
    )
    factor, ipc = cells[variant]
    steps, starts, batch_size, step_size_lr, num_iterations = _CELLS[factor, ipc]

    config = base_config()
    config.name = "_".join(
        ["tiny_imagenet_lt", variant, *(m for m in (method,) if m), *sorted(modifiers)]
    )
    config.data.source = "tiny_imagenet"
    config.data.imbalance_factor = factor
    config.data.whiten = "on"
    config.net.depth = 4

    distill, trajectory = config.distill, config.trajectory
    distill.ipc = ipc
    trajectory.num_iterations = num_iterations
    trajectory.gradient = "exact" if "exact" in modifiers else "two_pass"
    trajectory.batch_size = batch_size
    trajectory.initial_images = "real"
    trajectory.image_lr = 100.0
    trajectory.label_lr = 10.0
    trajectory.step_size_lr = step_size_lr
    first, second = trajectory.representation, trajectory.classifier
    first.student_steps, second.student_steps = steps, steps
    first.min_start_epoch, first.max_start_epoch = starts
    first.loss_weight, second.loss_weight = 1.0, 0.1
    if "as_published" in modifiers:
        trajectory.num_shards = find_published(_GPUS, factor, ipc)
    use_preset(config, method or DEFAULT_METHOD)
    return config
