"""Long-tailed dataset distillation in JAX and Flax.

    distilled = ltdd_jax.distill_dataset(images, labels, images_per_class=10)

Importing the package alone does not import JAX: the functions are loaded when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltdd_jax.api import (
        TrainedExperts,
        distill_dataset,
        evaluate_dataset,
        train_experts,
    )
    from ltdd_jax.dataset import DistilledDataset, load_dataset
    from ltdd_jax.export import export_dataset

__version__ = "0.1.0"

_HOME = {
    "DistilledDataset": "dataset",
    "TrainedExperts": "api",
    "distill_dataset": "api",
    "evaluate_dataset": "api",
    "export_dataset": "export",
    "load_dataset": "dataset",
    "train_experts": "api",
}
__all__ = [
    "DistilledDataset",
    "TrainedExperts",
    "distill_dataset",
    "evaluate_dataset",
    "export_dataset",
    "load_dataset",
    "train_experts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
