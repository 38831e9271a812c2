"""Fashion-MNIST-LT (10 classes, 28x28, greyscale): small enough for a laptop, and exact everywhere.

    apt-get install dataset-fashion-mnist    # or --config.data.path=FOLDER with the four IDX files
    python -m ltdd_jax.main --config=configs/fashion_mnist_lt.py:if100_ipc10

The folder of Debian's package is found by itself; a set that TensorFlow Datasets has prepared as
`fashion_mnist` is read where neither is there.

After the colon, joined by commas: `ifFACTOR_ipcIMAGES` with factor 10, 50, 100 or 200 and 10, 20 or
50 images per class (`if100_ipc10` when left out); the name of a method (`dam_ed`, that of Zhao et
al., CVPR 2025, arXiv 2408.14506, when left out); `exact` for the exact gradient instead of the
paper's two-pass one.

The paper has no Fashion-MNIST, so there is no published accuracy and every setting is our choice:
those of the authors for CIFAR-10-LT of factor 100 with 10 images per class, of which the last start
epoch and the image rate follow the number of images; a mirrored garment is still the same garment.
Every method takes these numbers as far as it reads them.
"""

from ml_collections import ConfigDict

from ltdd_jax.config import DEFAULT_METHOD, METHODS, base_config, parse_argument, use_preset

# Images per class: last + 1 start epoch of the representation phase, image_lr.
_NUMBERS = {10: (20, 100.0), 20: (20, 100.0), 50: (40, 1000.0)}
_CELLS = {f"if{f}_ipc{ipc}": (f, ipc) for f in (100, 10, 50, 200) for ipc in _NUMBERS}


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config of one cell, e.g. "if100_ipc10" or "if100_ipc10,random"."""
    variant, method, modifiers = parse_argument(argument, list(_CELLS), METHODS, ("exact",))
    factor, ipc = _CELLS[variant]

    config = base_config()
    config.name = "_".join(
        ["fashion_mnist_lt", variant, *(m for m in (method,) if m), *sorted(modifiers)]
    )
    config.data.source = "fashion_mnist"
    config.data.imbalance_factor = factor
    config.data.whiten = "on"

    distill, trajectory = config.distill, config.trajectory
    distill.ipc = ipc
    trajectory.gradient = "exact" if "exact" in modifiers else "two_pass"
    trajectory.initial_images = "correct"
    trajectory.label_lr = 2.0
    first, second = trajectory.representation, trajectory.classifier
    first.max_start_epoch, trajectory.image_lr = _NUMBERS[ipc]
    first.loss_weight, second.loss_weight = 0.5, 1.0
    use_preset(config, method or DEFAULT_METHOD)
    return config
