"""The result of a run as one page to open in a browser (report.html): no network, no script."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltdd_jax.report import blocks, markup, sections, style, text
from ltdd_jax.report.cards import Pictures
from ltdd_jax.report.sections import Curve

_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
_TIMED_IN = {"teachers": "experts", "baselines": "evaluate"}  # work -> the stage that it is part of


@dataclasses.dataclass(frozen=True)
class Material:
    """What the page shows besides the report.

    Attributes:
      pictures: the distilled images.
      confusion: counts [K, K] of the distilled set, rows are true classes; None if not counted.
      expert_losses: kind -> float [epochs, experts].
      distill_losses: name -> (iterations, values).
      reference: where the method was published; numbers of arXiv become links.
      plan: what the run said it was going to do.
      flops: stage -> multiplications and additions, estimated.
      workdir: where the run lies.
      set_name: of the distilled set in it; "" is the one at the root.
      labels_file: name of the file of labels that were made after the set; "" without one.
    """

    pictures: Pictures
    confusion: Sequence[Sequence[int]] | None = None
    expert_losses: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    distill_losses: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    reference: str = ""
    plan: str = ""
    flops: Mapping[str, float] = dataclasses.field(default_factory=dict)
    workdir: str = ""
    set_name: str = ""
    labels_file: str = ""


def render_page(report: Mapping[str, Any], material: Material) -> str:
    """The whole page.

    Args:
      report: of `text.make_report`.
      material: the rest.

    Returns:
      An HTML document that refers to nothing outside itself but the paper.
    """
    counts = np.asarray(report["train_counts"])
    order = np.argsort(-counts, kind="stable")  # the most frequent class first
    drawn = {
        "results": ("Results", _draw_results(report, "i")),
        "taught": (blocks.TITLES["ii"], _draw_results(report, "ii")),
        "networks": ("Other networks", _draw_ways(report)),
        "classes": ("Classes", sections.draw_classes(report, order)),
        "images": ("Distilled images", sections.draw_images(report, material.pictures, order)),
        "confusion": ("Confusions", sections.draw_confusions(report, material.confusion, order)),
        "experts": ("Experts", sections.draw_experts(report, material.expert_losses, order)),
        "distillation": (
            "Distillation",
            sections.draw_distillation(report, material.distill_losses),
        ),
        "use": ("How to use the files", _draw_use(report, material)),
        "cost": ("Time and cost", _draw_cost(report, material)),
        "settings": ("Plan and settings", _draw_settings(report, material)),
    }
    present = {name: (title, parts) for name, (title, parts) in drawn.items() if any(parts)}
    links = "".join(
        f'<li><a href="#{name}">{markup.escape(title)}</a></li>'
        for name, (title, _) in present.items()
    )
    body = "\n".join(
        markup.section(name, title, *parts) for name, (title, parts) in present.items()
    )
    title = markup.escape(report["name"])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: report</title>
<style>{style.CSS}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{markup.paragraph(text.describe_settings(report))}{_draw_judges(report)}
{_draw_numbers(report)}
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
<footer>
{markup.paragraph(text.describe_origin(report))}
{_cite(material.reference)}
</footer>
</body>
</html>
"""


def _draw_judges(report):
    """What is to be said before any number."""
    return "".join(markup.paragraph(sentence) for sentence in text.describe_judges(report))


def _draw_numbers(report):
    """What matters most at a glance: of the first block alone, since the two are not compared."""
    rows = next(iter(blocks.list_blocks(report).values()), {})
    items = ""
    for name in ("distilled", "random_real", "full_real", "ii_distilled", "ii_random_real"):
        if name in rows:
            items += (
                f"<div><dt>{markup.escape(rows[name]['title'])}</dt><dd>{rows[name]['mean']:.1f} % "
                f"<small>± {rows[name]['std']:.1f}</small></dd></div>"
            )
    return f'<dl class="numbers">{items}</dl>'


def _draw_results(report, block):
    """The table of a block, and how each row came about."""
    rows = blocks.list_blocks(report).get(block)
    if not rows:
        return []
    num_seeds = max(len(row["per_seed"]) for row in rows.values())
    body = [
        [row["title"], text.format_mean(row),
         *(text.format_accuracy(row.get(c)) for c in list(text.COLUMNS)[1:]),
         f"{row['rate']:.4g}", f"{row['updates']:,}"]
        for row in rows.values()
    ]  # fmt: skip
    caption = (
        f"Top-1 accuracy in % on {text.name_judges(report)}, mean ± standard deviation over "
        f"{blocks.count(num_seeds, 'network')} trained from scratch; groups by training "
        "images per class. Nothing was chosen on the test set."
    )
    if block == "ii":
        caption += " Not to be compared with the other block: here a teacher labels every view."
    header = ["trained on", *text.COLUMNS.values(), "rate", "updates"]
    names = list(rows)
    chosen = next((names.index(n) for n in ("distilled", "ii_distilled") if n in names), None)
    parts = [markup.table(header, body, caption=caption, chosen=chosen)]
    notes = [*blocks.describe_notes(rows), *text.describe_rates(rows)]
    parts += [markup.paragraph(line, "soft") for line in notes]
    origins = blocks.describe_rows(rows)
    if origins:
        caption = "What every row stores, sees and is trained with"
        table = markup.table(blocks.HEADER, origins, caption=caption, css="settings")
        parts.append(markup.fold("Where these rows come from", table))
    return parts


def _draw_ways(report):
    """The table of other networks and optimisers."""
    body = text.describe_ways(report)
    if not body:
        return []
    caption = (
        "Top-1 accuracy in %, mean ± standard deviation, of other networks and optimisers trained "
        "on the same sets, as in block (i). Nothing was tuned for them."
    )
    return [markup.table(blocks.WAYS, body, caption=caption)]


def _draw_use(report, material):
    home = f"sets/{material.set_name}/" if material.set_name else ""
    files = [
        [f"{home}synthetic/synthetic.npz", "the distilled set: images, pixels, label logits, "
         "labels, step size, class names"],
        *([[f"{home}synthetic/{material.labels_file}", "labels that were made for it later"]]
          if material.labels_file else []),
        [f"{home}synthetic/grid.png", "its images, a row per class"],
        ["preprocessing.npz", "the whitening, fitted to the training images"],
        [f"{home}report.json", "every number of this page"],
        [f"{home}metrics.jsonl", "losses, a line per logged step"],
    ]  # fmt: skip
    return [
        markup.paragraph("Networks learn from the distilled set in place of the training images."),
        markup.code(_write_program(material)),
        markup.paragraph("Without this package, from the folder of this page:"),
        markup.code(_write_reading(material, report["config"]["labels"]["relabel"])),
        markup.table(["file", "content"], files, caption=f"In {material.workdir}", css="settings"),
    ]


def _write_program(material):
    """The code that reads the set with this package."""
    name = f", set_name={material.set_name!r}" if material.set_name else ""
    load = f"distilled = ltdd_jax.load_dataset({material.workdir!r}{name})"
    if material.pictures.partition > 1:
        load += ".expand()  # every picture an image of its own"
    return (
        f"import ltdd_jax\n\n{load}\n"
        "distilled.images               # float32 [S, H, W, C], as a network is trained on them\n"
        "distilled.label_probabilities  # float32 [S, K], soft labels\n"
        "distilled.step_size            # the learning rate the set was made for\n"
        "distilled.whiten(pixels)       # what test images (uint8 [N, H, W, C]) have to go through"
    )


def _write_reading(material, relabel):
    """The code that needs NumPy alone, with the labels that were evaluated."""
    factor, name = material.pictures.partition, material.labels_file
    several = f"  # each holds {factor} x {factor} pictures, which networks see enlarged"
    lines = [
        "import numpy as np\n",
        'with np.load("synthetic/synthetic.npz") as arrays:',
        f'    images = arrays["images"]{several if factor > 1 else ""}',
    ]
    logits = '    label_logits = arrays["label_logits"]'
    if not name or relabel == "views":  # which leaves the images their own labels
        lines.append(logits)
    if name:
        order = "  # of all first pictures, then of all second ones" if factor > 1 else ""
        views = '    view_logits = arrays["views"]  # [V, S, K], of augmented views of the images'
        lines.append(f'with np.load("synthetic/{name}") as arrays:')
        lines.append(views if relabel == "views" else f"{logits}{order}")
    return "\n".join(lines)


def _cite(reference):
    if not reference:
        return ""
    link = r'<a href="https://arxiv.org/abs/\1">\g<0></a>'
    return f"<p>Method: {_ARXIV.sub(link, markup.escape(reference))}</p>"


def _draw_cost(report, material):
    seconds = dict(text.seconds_in_order(report))
    stages = [*material.flops, *(stage for stage in seconds if stage not in material.flops)]
    rows = [
        [
            stage,
            _show_seconds(stage, seconds),
            f"{material.flops[stage] / 1e9:,.3g}" if stage in material.flops else "",
        ]
        for stage in stages
    ]
    caption = "Wall time over all sittings, compilation included, and estimated work of the layers"
    return [markup.table(["stage", "seconds", "GFLOP"], rows, caption=caption)] if rows else []


def _show_seconds(stage, seconds):
    if stage in seconds:
        return f"{seconds[stage]:,.0f}"
    timed_in = _TIMED_IN.get(stage)
    return f"in {timed_in}" if timed_in in seconds else text.ABSENT


def _draw_settings(report, material):
    parts = [markup.code(material.plan, wrap=True)] if material.plan else []
    top = [[name, str(v)] for name, v in report["config"].items() if not isinstance(v, Mapping)]
    sections = {n: list(_flatten(v)) for n, v in report["config"].items() if isinstance(v, Mapping)}
    for title, rows in {"general": top, **sections}.items():
        if rows:
            table = markup.table(
                ["setting", "value"], rows, caption=f"Settings: {title}", css="settings"
            )
            parts.append(markup.fold(title, table))
    versions = [[name, version] for name, version in report["versions"].items()]
    table = markup.table(["package", "version"], versions, caption="Versions", css="settings")
    return [*parts, markup.fold("versions", table)]


def _flatten(settings, prefix=""):
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield [f"{prefix}{name}", str(value)]
