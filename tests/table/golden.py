"""A small table, as lines typed by hand, for the formats."""

from ltdd_jax.literature import Published
from ltdd_jax.table.collecting import Line

HERE = ("cifar10", True, 100.0, 10, 0)


def _summary(mean, std, many, medium, **more):
    return {
        "mean": mean, "std": std, "balanced": mean, "many": many, "medium": medium,
        "per_seed": [1.0, 2.0], "rate": 0.01, "updates": 1001, "images_stored": 100,
        "images_seen": 100, "student": "ConvNet, width 64", "augmentation": "DSA",
    } | more  # fmt: skip


def _stored(images, labels, teacher):
    return {"images": images, "labels": labels, "teacher": teacher}


LINES = (
    Line(
        cell="mtt", setting=HERE, block="i", row="random_real", title="random real images",
        summary=_summary(31.44, 0.25, 40.0, 9.96, labels="H", stored_bytes=_stored(307200, 0, 0)),
    ),
    Line(
        cell="mtt", setting=HERE, block="i", row="distilled", title="MTT & co_1",
        summary=_summary(
            38.5, 1.0, 50.0, 20.0, labels="S1", stored_bytes=_stored(1228800, 4000, 0)
        ),
        over_random=7.06,
        published=Published(
            "cifar10", 100, 10, "mtt", 37.7, 0.6, "A et al., 2024, arXiv 2408.14506", "not said",
            "convnet",
        ),
        differences=("width 64 in place of 128", "100 % | JPEG"),
    ),
    Line(
        cell="mtt", setting=HERE, block="ii", row="ii_random_real", title="random real images",
        summary=_summary(
            55.3, 0.4, 60.0, 50.0, labels="ST", updates=2000,
            stored_bytes=_stored(307200, 0, 1280040), augmentation="crop, cutmix",
        ),
        teacher=62.9,
    ),
)  # fmt: skip
