"""How single numbers of docs/results are said in tables and pictures."""

from measured import MIN_SEEDS, Number

from ltdd_jax.presets import PRESETS
from ltdd_jax.table.layout import ABSENT, describe_setting, show_mean

TITLES = {
    "random_real": "random real images",
    "random_real_soft": "random real images, soft labels",
    "teacher": "teacher: the whole training set",
    "full_real": "whole training set",
}


def describe(row: Number) -> str:
    """'CIFAR-10-LT, imbalance factor 100, 10 images per class, width 32'."""
    factor = row.imbalance_factor
    setting = (row.data, factor is not None and factor > 1, factor or 1.0, row.ipc, 0)
    pixels = " (JPEG pixels)" if row.pixels == "jpeg" else ""
    judge = "" if row.judge == "test" else ", judged by held-out training images"
    return f"{describe_setting(setting)}, width {row.width}{pixels}{judge}"


def name(row: Number) -> str:
    """What the networks of a row were trained on."""
    if row.row in TITLES:
        return TITLES[row.row]
    if row.method == "random":  # the row of every report draws other images for each network
        return "random real images, drawn once"
    return PRESETS[row.method].title if row.method in PRESETS else row.method


def title(row: Number) -> str:
    """`name` with the variant."""
    return ", ".join(x for x in (name(row), row.variant) if x)


def show_published(row: Number) -> str:
    """'53.4 ± 0.1 (Zhao et al.)'."""
    if row.published is None:
        return ABSENT
    return f"{show_mean(row.published, row.published_std)} ({row.published_source})"


def show(row: Number | None) -> str:
    """'79.3 ± 1.9', without a spread for one network."""
    return ABSENT if row is None else show_mean(row.mean, row.std if row.seeds > 1 else None)


def show_beside(row: Number | None) -> str:
    """As `show`, where no column says of how many networks: '28.0 ± 0.9 (2 networks)'."""
    few = row is not None and 1 < row.seeds < MIN_SEEDS
    return f"{show(row)} ({row.seeds} networks)" if few else show(row)


def sign(value: float | None) -> str:
    """'+4.6'."""
    return ABSENT if value is None else f"{round(value, 1) + 0.0:+.1f}"  # never -0.0


def show_one(value: float | None) -> str:
    """'79.3'."""
    return ABSENT if value is None else f"{value:.1f}"


def count(value: int | None) -> str:
    """'1,600', or a dash for none."""
    return ABSENT if not value else f"{value:,}"


def show_kilobytes(value: int | None) -> str:
    """'1.3' for 1280 bytes, '1,233' for a thousand times as many."""
    if not value:
        return ABSENT
    return f"{value / 1000:,.0f}" if value >= 1e5 else f"{value / 1000:,.1f}"


def show_time(seconds: float | None) -> str:
    """'42 s', '12 min', '3.4 h'."""
    if seconds is None:
        return ABSENT
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_both_times(row: Number) -> str:
    """'30 s + 28 s': of the experts, and of the set; 'shared + 28 s' where others trained them."""
    times = [show_time(x) for x in (row.expert_seconds, row.wall_seconds) if x is not None]
    if row.experts and row.expert_seconds is None and times:
        times = ["shared", *times]
    return " + ".join(times) or ABSENT
