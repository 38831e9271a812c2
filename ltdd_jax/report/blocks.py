"""The two blocks of an evaluation, each a table of its own, and what every row in them stands for.

Block (i) trains on a class or one soft label per image, block (ii) on a teacher's labels of every
augmented view: numbers of one are not to be compared with those of the other.
"""

from collections.abc import Mapping
from typing import Any

TITLES = {
    "i": "Block (i): a class or one soft label per image",
    "ii": "Block (ii): a teacher's labels of every augmented view",
}
REGIMES = {
    "H": "H: the class",
    "S1": "S1: one soft label per image",
    "SE": "SE: soft labels of stored views",
    "ST": "ST: a teacher labels every view",
}
HEADER = (
    "trained on",
    "labels",
    "images stored",
    "images seen",
    "bytes of images",
    "bytes of labels",
    "bytes of teacher",
)
_CURVE, _TRANSFERRED = "iteration_", "@"
WAYS = ("network", "optimiser", "distilled set", "random real images")

Rows = Mapping[str, Mapping[str, Any]]


def list_blocks(report: Mapping[str, Any]) -> dict[str, Rows]:
    """Block -> the rows that are compared in it, by name, without curve and other networks."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, row in report["results"].items():
        if not name.startswith(_CURVE) and _TRANSFERRED not in name:
            found.setdefault(row.get("block", "i"), {})[name] = row
    return {block: found[block] for block in TITLES if block in found}


def list_ways(report: Mapping[str, Any]) -> list[tuple[str, str, Rows]]:
    """(network, optimiser, rows by the name they have in block (i)) of every further training."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for name, row in report["results"].items():
        base, mark, _ = name.partition(_TRANSFERRED)
        if mark:
            found.setdefault((row["network"], row["protocol"]), {})[base] = row
    return [(*way, rows) for way, rows in found.items()]


def describe_rows(rows: Rows) -> list[list[str]]:
    """A line below `HEADER` for every row that says how it came about."""
    return [
        [
            row["title"],
            REGIMES[row["labels"]],
            f"{row['images_stored']:,}",
            f"{row['images_seen']:,}",
            *(f"{row['stored_bytes'][part]:,}" for part in ("images", "labels", "teacher")),
        ]
        for row in rows.values()
        if "labels" in row
    ]


def count(number: int, noun: str) -> str:
    """'1 network', '5 networks'."""
    return f"{number} {noun}" + "s" * (number != 1)


def describe_notes(rows: Rows) -> list[str]:
    """Sentences below the table of a block: protocol, teacher, and the measures of DD-Ranking."""
    notes = _describe_protocol(rows)
    teacher = next(iter(rows.values())).get("teacher")
    if teacher:
        several = f", mean logits of {teacher['nets']} networks" if teacher["nets"] > 1 else ""
        notes.append(
            f"The teacher itself: {teacher['mean']:.1f} % (balanced {teacher['balanced']:.1f} %)"
            f"{several}. Random real images stand first: what they reach is owed to the teacher "
            "and the augmentation, not to distilled images."
        )
    return [*notes, *_describe_ranking(rows)]


def _describe_protocol(rows):
    """What the rows of a block have in common."""
    row = next(iter(rows.values()))
    if "student" not in row:
        return []
    return [
        f"Every row: students {row['student']}, {count(row['seeds'], 'seed')}, augmentation "
        f"{row['augmentation']}, selection: {row['selection']}."
    ]


def _describe_ranking(rows):
    row = next((row for row in rows.values() if row.get("ior") is not None), None)
    if row is None:
        return []
    words = [f"improvement over random {row['ior']:+.1f} points under the same protocol"]
    if row["hlr"] is not None:
        words.insert(0, f"hard-label recovery {row['hlr']:.1f} points below the whole real set")
    if row["lrs"] is not None:
        words.append(f"label-robust score {row['lrs']:.3f} of 1")
    return [f"DD-Ranking of «{row['title']}»: {', '.join(words)}."]
