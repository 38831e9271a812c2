"""Reports of runs that never were, for pages of any size."""

import numpy as np

from ltdd_jax import config as settings
from ltdd_jax.report import page, text

ROWS = ("distilled", "initial", "initial_at_baseline_rate", "random_real", "full_real")


def make_report(num_classes=10, names=None, rows=ROWS, experts=True, **changes):
    """What `text.make_report` returns for accuracies that fall with the class."""
    names = names or [f"class {k}" for k in range(num_classes)]
    falling = np.linspace(90, 10, num_classes)
    results = {
        name: {
            "mean": 50.0 + place, "std": 1.5, "per_seed": [50.0, 51.0], "balanced": 50.0,
            "per_class": np.clip(falling + 3 * place, 0, 100).tolist(), "many": 70.0, "few": 20.0,
            "title": f"title of {name}", "rate": 0.01, "tuning": {}, "updates": 1001,
        }
        for place, name in enumerate(rows)
    }  # fmt: skip
    summary = {"mean": 60.0, "balanced": 55.0, "many": 70.0, "few": 40.0, "num_epochs": 30}
    kinds = ("representation", "classifier") if experts else ()
    arguments = dict(
        config=settings.base_config().to_dict(),
        config_hash="c" * 64,
        data_fingerprint="d" * 64,
        class_names=names,
        train_counts=np.geomspace(500, 5, num_classes).astype(int).tolist(),
        versions={"jax": "0.10.2"},
        seconds={"experts": 12.3, "distill": 45.0, "evaluate": 6.0},
        experts={kind: summary | {"per_class": falling.tolist()} for kind in kinds},
    )
    return text.make_report(results, **(arguments | changes))


def make_pictures(num_classes=10, per_class=2, side=8, channels=3, initial=True):
    """Noise, which compresses worst, with a label of its own class for the most part."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), per_class)
    shape = (len(labels), side, side, channels)
    shares = draw.random((len(labels), num_classes)) ** 4
    shares[np.arange(len(labels)), labels] = shares.sum(axis=1)
    before = draw.integers(0, 256, shape, np.uint8) if initial else None
    return page.Pictures(
        pixels=draw.integers(0, 256, shape, np.uint8),
        labels=labels,
        probabilities=shares / shares.sum(axis=1, keepdims=True),
        initial=before,
    )


def make_material(pictures, **changes):
    """Everything else that a page shows."""
    num_classes = pictures.probabilities.shape[1]
    confusion = np.random.default_rng(1).integers(0, 5, (num_classes, num_classes))
    epochs = np.arange(1, 31)[:, None]
    arguments = dict(
        confusion=(confusion + 20 * np.eye(num_classes, dtype=int)).tolist(),
        expert_losses={"representation": 2 / epochs + [[0.1, 0.2]]},
        distill_losses={"loss": ([50, 100, 150], [0.9, 0.7, 0.6])},
        reference="Zhao et al., CVPR 2025, arXiv 2408.14506",
        plan="what the run\n  is going to do",
        flops={"experts": 1e12, "distill": 2e12, "evaluate": 3e11, "baselines": 1e11},
        workdir="runs/made up",
    )
    return page.Material(pictures=pictures, **(arguments | changes))
