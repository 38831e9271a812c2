"""From the reports of finished cells to the lines of a table."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ltdd_jax import records
from ltdd_jax.literature import NOT_SAID, Published
from ltdd_jax.presets import PRESETS
from ltdd_jax.table.cells import Job

FIRST, SECOND = "i", "ii"  # blocks: labels stored with the images, or a teacher's for every view
RANDOM, FULL, DISTILLED = "random_real", "full_real", "distilled"
RANDOM_SOFT = "random_real_soft"  # with soft labels of the same source as those of the set
BESIDE = {"distilled_hard": "hard labels", "distilled_8bit": "8-bit pixels"}  # the same images
_PREFIX = "ii_"  # of rows of the second block
# Published with labels of a teacher for every view, so that they belong into the second block.
_OF_TEACHERS = ("sre2l", "rded", "edc", "edc_adsa", "rldd")

_OTHER_PROTOCOL = (
    "published number: students trained as its paper does; ours: as the section student says, the "
    "same for all rows"
)

# The row of every report draws other images for each network, a set is drawn once.
_TITLES = {"random": "random real images, drawn once"}

# What differs from the published set-up is named with these words, other fields by themselves.
_WORDS = {
    "augment.strategy": "augmentation",
    "data.image_size": "side of the pictures in pixels",
    "data.judge": "judges",
    "data.source": "source of the pictures",
    "evaluation.batch_size": "batch of the evaluation",
    "evaluation.num_epochs": "epochs of the evaluation",
    "experts.classifier.num_epochs": "epochs of the classifier experts",
    "experts.num_experts": "experts",
    "experts.representation.num_epochs": "epochs of the experts",
    "net.depth": "depth of the network",
    "net.name": "network",
    "net.width": "width of the network",
}
# These change no result, or are columns of the table.
_SILENT = (
    "name", "seed", "budget", "runtime.", "data.data_dir", "data.path", "data.follow_links",
    "data.max_", "data.memory", "data.cache", "experts.path", "evaluation.num_seeds",
    "evaluation.full_num_epochs",
    "evaluation.baseline_rates", "evaluation.held_out", "evaluation.tuning_epochs",
    "evaluation.curve", "evaluation.rows", "evaluation.extra_rows", "evaluation.keep_networks",
    "evaluation.blocks",
    "evaluation.networks",
    "evaluation.protocols", "distill.keep_steps",
)  # fmt: skip
_TOLD = ("runtime.precision",)  # the one of its section that changes results
_OF_RANDOM = (
    "data.",
    "net.",
    "augment.",
    "evaluation.",
    "student.",
)  # fields that random images depend on

Find = Callable[..., Published | None]


@dataclasses.dataclass(frozen=True)
class Line:
    """One data set on which networks were trained, and what is said beside it.

    Attributes:
      cell: whose report it stands in.
      setting: (data source, whether long-tailed, imbalance factor, images per class, seed).
      block: `FIRST` or `SECOND`.
      row: name in the report.
      title: of the data set.
      summary: of the row, from the report.
      over_random: percentage points above random real images of the same block and report, with
        labels of the same kind where these were evaluated.
      beside: name in `BESIDE` -> summary of the same images in that form.
      teacher: accuracy of the teachers that label, by their mean logits, percent; None without one.
      published: number of the literature for the same cell.
      differences: of the set-up from the published one, clauses.
      judge: "test", or "held_out" where training images judged.
    """

    cell: str
    setting: tuple[str, bool, float, int, int]
    block: str
    row: str
    title: str
    summary: Mapping[str, Any]
    over_random: float | None = None
    beside: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    teacher: float | None = None
    published: Published | None = None
    differences: tuple[str, ...] = ()
    judge: str = "test"

    @property
    def kind(self) -> str:
        """The row's name without its block."""
        return self.row.removeprefix(_PREFIX)


def collect_lines(finished: Iterable[tuple[Job, Mapping[str, Any]]], find: Find) -> list[Line]:
    """All rows of all reports; each block of a setting begins with random real images.

    Args:
      finished: cells with their reports (content of report.json), in the order of the table.
      find: (data source, imbalance factor, images per class, method, num_classes=) -> published
        number.
    """
    lines = [line for job, report in finished for line in _collect(job, report, find)]
    settings = list(dict.fromkeys(line.setting for line in lines))
    result = []
    for block in (FIRST, SECOND):
        for setting in settings:
            here = [x for x in lines if (x.block, x.setting) == (block, setting)]
            random, soft, full = (
                _tell_apart([x for x in here if x.kind == kind])
                for kind in (RANDOM, RANDOM_SOFT, FULL)
            )
            sets = [x for x in here if x.kind not in (RANDOM, RANDOM_SOFT, FULL)]
            result += [*random, *soft, *sets, *full]
    return result


def _collect(job: Job, report: Mapping[str, Any], find: Find) -> list[Line]:
    config, results = job.config, report["results"]
    is_cut = config.data.subset == "long_tail"
    setting = (
        config.data.source, is_cut, float(config.data.imbalance_factor), int(config.distill.ipc),
        int(config.seed),
    )  # fmt: skip
    lines = []
    for row, summary in results.items():
        if "@" in row:  # on another network: the report of the cell has these
            continue
        block = summary.get("block", SECOND if row.startswith(_PREFIX) else FIRST)
        kind = row.removeprefix(_PREFIX)
        is_set = kind not in (RANDOM, RANDOM_SOFT, FULL)
        method = {RANDOM: "random", DISTILLED: job.cell.method}.get(kind)
        published = None
        if method and is_cut and belongs(method, block):
            count = len(report["train_counts"])
            published = find(setting[0], setting[2], setting[3], method, num_classes=count)
        lines.append(
            Line(
                cell=job.name,
                setting=setting,
                block=block,
                row=row,
                title=_name_row(job, kind, summary),
                summary=summary,
                over_random=_gain(results, row, summary, block) if is_set else None,
                beside={name: results[name] for name in BESIDE if name in results}
                if row == DISTILLED
                else {},
                teacher=summary.get("teacher", {}).get("mean"),
                published=published,
                differences=_differences(job, report, row, published) if published else (),
                judge=config.data.judge,
            )
        )
    return lines


def _gain(results, row, summary, block):
    """What the report says, or the difference from random images of the block."""
    if summary.get("ior") is not None:
        return summary["ior"]
    random = results.get((_PREFIX if block == SECOND else "") + RANDOM)
    return None if random is None else summary["mean"] - random["mean"]


def belongs(method: str, block: str) -> bool:
    """Whether the published numbers of a method were made with labels as in that block."""
    return (method in _OF_TEACHERS) == (block == SECOND)


def _name_row(job, kind, summary):
    if kind == RANDOM:
        return "random real images"
    if kind == RANDOM_SOFT:
        return "random real images, soft labels"
    if kind == FULL:
        return "whole training set"
    method = job.cell.method
    title = job.cell.title or _TITLES.get(method, PRESETS[method].title)
    return title if kind == DISTILLED else f"{title}: {summary['title']}"


def _differences(job: Job, report, row, published: Published) -> tuple[str, ...]:
    """Clauses on how our set-up differs from the published one."""
    base = records.flatten(job.base.to_dict())
    ours = records.flatten(job.config.to_dict())
    changed = [
        f"{_word(field)} {_show(ours[field])} in place of {_show(value)}"
        for field, value in base.items()
        if ours[field] != value and _is_told(field, job, report, row)
    ]
    if published.selection != NOT_SAID:
        changed.append(f"published number: {published.selection}; ours: the last iterate")
    if published.protocol:
        changed.append(
            f"published number: {published.protocol}, as far as the program of its own paper was "
            "used; ours: as the sections data and evaluation say, the same for all rows"
        )
    if row.startswith(_PREFIX):  # every paper has another one
        changed.append(_OTHER_PROTOCOL)
    return (*changed, *job.cell.notes)


def _is_told(field, job, report, row):
    """Whether a field has a say in the result and is no column of the table."""
    section, _, rest = field.partition(".")
    if field in _TOLD:
        return True
    if field.startswith(_SILENT) or (section == "student" and not row.startswith(_PREFIX)):
        return False
    if row.removeprefix(_PREFIX) == RANDOM:
        return field.startswith(_OF_RANDOM)
    if section == "experts":
        part, kinds = rest.partition(".")[0], report["experts"]
        return part in kinds if part in ("representation", "classifier") else bool(kinds)
    if section in ("teacher", "observer"):
        return any(name.startswith(section) for name in report.get("teachers", ()))
    families = {preset.section for preset in PRESETS.values()}
    return section not in families or section == PRESETS[job.cell.method].section


def _word(field):
    ends = {".num_iterations": "iterations", ".num_networks": "networks that match"}
    found = (word for end, word in ends.items() if field.endswith(end))
    return _WORDS.get(field) or next(found, field)


def _show(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _tell_apart(lines: Sequence[Line]) -> list[Line]:
    """Equal lines of several cells once; others of the same name say whose they are."""
    kept: dict[tuple, list[Line]] = {}
    for line in lines:
        key = (line.summary["mean"], line.summary["std"], line.summary.get("updates"))
        kept.setdefault(key, []).append(line)
    groups = sorted(kept.values(), key=len, reverse=True)  # the common protocol comes first
    if len(groups) < 2:
        return [group[0] for group in groups]
    rest = [
        dataclasses.replace(group[0], title=f"{group[0].title}, as for {group[0].cell}")
        for group in groups[1:]
    ]
    return [groups[0][0], *rest]
