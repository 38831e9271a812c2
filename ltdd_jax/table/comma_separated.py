"""The table as comma-separated values (table.csv): every row of every report, in full precision."""

import csv
import io
from collections.abc import Sequence

from ltdd_jax.table.collecting import Line

_PLAIN = ("mean", "std", "balanced", "many", "medium", "few")
_PROTOCOL = ("labels", "images_stored", "images_seen", "updates", "rate")
_TEXTS = ("augmentation", "student", "selection")
_RANKING = ("hlr", "ior", "lrs")
_BYTES = ("images", "labels", "teacher")
HEADER = (
    "data", "long_tailed", "imbalance_factor", "images_per_class", "seed", "block", "cell", "row",
    "title", *_PLAIN, "over_random", "networks", "published_mean", "published_std",
    "published_source", "differences", *_PROTOCOL, *(f"bytes_of_{name}" for name in _BYTES),
    *_TEXTS, *_RANKING, "teacher",
)  # fmt: skip


def render_csv(lines: Sequence[Line]) -> str:
    """A header, and a record for each line; what is not known is left empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(_record, lines))
    return buffer.getvalue()


def _record(line: Line) -> list:
    summary, published = line.summary, line.published
    source, is_cut, factor, ipc, seed = line.setting
    stored = summary.get("stored_bytes") or {}
    defaults = {"images_stored": summary.get("images"), "images_seen": summary.get("images")}
    return [
        source, str(is_cut).lower(), f"{factor:g}" if is_cut else "", ipc, seed, line.block,
        line.cell, line.row, line.title,
        *(summary.get(name) for name in _PLAIN),
        line.over_random,
        len(summary["per_seed"]),
        *((published.mean, published.std, published.source) if published else ("", "", "")),
        "; ".join(line.differences),
        *(summary.get(name, defaults.get(name)) for name in _PROTOCOL),
        *(stored.get(name) for name in _BYTES),
        *(summary.get(name) for name in (*_TEXTS, *_RANKING)),
        line.teacher,
    ]  # fmt: skip
