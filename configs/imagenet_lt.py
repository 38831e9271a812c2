"""ImageNet-LT (1000 classes) at 64x64 pixels.

Zhao et al., "Distilling Long-tailed Datasets", CVPR 2025, https://arxiv.org/abs/2408.14506

    python -m ltdd_jax.main --config=configs/imagenet_lt.py:if10_ipc10 --config.data.path=FOLDER

FOLDER (or a tar or zip) has train/ and val/ with a folder of pictures per class; without a path the
set is `imagenet2012` of TensorFlow Datasets in --config.data.data_dir. Pictures are resized to the
exact square. Their pixels are decoded once into 16 GB in --config.data.cache, where batches are
read (those of `official`, 2 GB, are kept in memory).

After the colon, joined by commas: `ifFACTOR_ipcIMAGES` with factor 5 or 10, or
`official_ipcIMAGES`, and 10 or 20 images per class (`if10_ipc10` when left out); the name of a
method (`dam_ed`, the paper's, when left out); `exact` for the exact gradient instead of the paper's
two-pass one.
`official` is the split of Liu et al. (CVPR 2019, arXiv 1904.05160; factor 256): it needs their list
of files as --config.data.train_list=ImageNet_LT_train.txt.

No settings were released. These are what the authors wrote in their issue tracker for if10_ipc10
(ConvNet of depth 4, no whitening, 25 steps in both phases, batch of 100, 500 iterations, image rate
0.1, label rate 0.01, step-size rate 1e-7, real initialisation, start epochs 10 to 50), and our
choices where they said nothing: the same numbers for the other cells, channel normalisation, loss
weights 1 and 0.1 and the experts of the other data sets. The authors' split takes files in the
order of the file system; here they are sorted by name, so the pictures are others.

Published accuracy, top-1 % on the validation set. ltdd_jax/literature.py has the other methods'
numbers.

    factor   ipc 10       ipc 20
         5   20.8 ± 0.2   21.0 ± 0.1
        10   20.3 ± 0.1   20.7 ± 0.1
"""

from ml_collections import ConfigDict

from ltdd_jax.config import DEFAULT_METHOD, METHODS, base_config, parse_argument, use_preset

_CELLS = {f"if{factor}_ipc{ipc}": (factor, ipc) for factor in (10, 5) for ipc in (10, 20)}
_CELLS |= {f"official_ipc{ipc}": (0, ipc) for ipc in (10, 20)}


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config of one cell, e.g. "if10_ipc10" or "official_ipc20,random"."""
    variant, method, modifiers = parse_argument(argument, list(_CELLS), METHODS, ("exact",))
    factor, ipc = _CELLS[variant]

    config = base_config()
    config.name = "_".join(
        ["imagenet_lt", variant, *(m for m in (method,) if m), *sorted(modifiers)]
    )
    config.data.source = "imagenet"
    config.data.image_size = 64
    if factor:
        config.data.imbalance_factor = factor
    else:
        config.data.subset = "as_is"
    config.data.whiten = "off"
    config.data.normalize = True
    config.net.depth = 4

    distill, trajectory = config.distill, config.trajectory
    distill.ipc = ipc
    trajectory.num_iterations = 500
    trajectory.gradient = "exact" if "exact" in modifiers else "two_pass"
    trajectory.batch_size = 100
    trajectory.initial_images = "real"
    trajectory.image_lr = 0.1
    trajectory.label_lr = 0.01
    trajectory.step_size_lr = 1e-7
    first, second = trajectory.representation, trajectory.classifier
    first.student_steps, second.student_steps = 25, 25
    first.min_start_epoch, first.max_start_epoch = 10, 50
    first.loss_weight, second.loss_weight = 1.0, 0.1
    use_preset(config, method or DEFAULT_METHOD)
    return config
