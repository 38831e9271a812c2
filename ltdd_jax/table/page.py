"""The table as one page to open in a browser (table.html): no network, no script."""

import dataclasses
import re
from collections.abc import Sequence
from urllib import parse

from ltdd_jax.report import markup, style
from ltdd_jax.table.layout import Entry, Page, Sheet

_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
_CSS = """
thead th + th { white-space: normal; max-width: 7.5rem; }
tbody tr:first-child th, tbody tr:first-child td { border-bottom: 2px solid var(--rule); }
dl.legend { display: grid; grid-template-columns: max-content 1fr; gap: .2rem .8rem; }
dl.legend dt { font-weight: 600; }
dl.legend dd { margin: 0; max-width: 46rem; overflow-wrap: anywhere; }
"""


@dataclasses.dataclass(frozen=True)
class State:
    """How far a cell is.

    Attributes:
      name: of the cell.
      text: "finished", "waiting", or "failed: ..." with one sentence.
      report: path of its own report, relative to the page; "" if there is none.
    """

    name: str
    text: str
    report: str = ""


def render_page(page: Page, states: Sequence[State]) -> str:
    """The whole document.

    Args:
      page: of `layout.lay_out`.
      states: of all cells, in the order of the table.
    """
    title = markup.escape(page.title)
    sections = [
        markup.section(sheet.name, sheet.title, _draw_sheet(sheet)) for sheet in page.sheets
    ]
    legends = {
        "Differences from the published set-up": page.notes,
        "Published numbers": page.references,
    }
    legend = [_draw_legend(title, texts) for title, texts in legends.items() if texts]
    if legend:
        sections.append(markup.section("notes", "Notes and references", *legend))
    sections.append(markup.section("cells", "Cells", _draw_states(states)))
    links = "".join(
        f'<li><a href="#{name}">{markup.escape(text)}</a></li>'
        for name, text in (
            *((sheet.name, sheet.title) for sheet in page.sheets),
            *([("notes", "Notes and references")] if legend else []),
            ("cells", "Cells"),
        )
    )
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style.CSS}{_CSS}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{markup.paragraph(describe_states(states))}
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def describe_states(states: Sequence[State]) -> str:
    """'3 of 5 cells are finished, 1 failed, 1 is waiting.'"""
    finished = sum(state.text == "finished" for state in states)
    failed = sum(state.text.startswith("failed") for state in states)
    waiting = len(states) - finished - failed
    parts = [f"{finished} of {len(states)} cells {'is' if finished == 1 else 'are'} finished"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{waiting} {'is' if waiting == 1 else 'are'} waiting"] if waiting else []
    return ", ".join(parts) + "."


def _draw_sheet(sheet: Sheet) -> str:
    rows = [[_show(entry) for entry in row] for row in sheet.rows]
    return markup.table(sheet.header, rows, caption=sheet.caption)


def _show(entry: Entry) -> str:
    return entry.text + (f" [{', '.join(entry.marks)}]" if entry.marks else "")


def _draw_legend(title, texts):
    link = r'<a href="https://arxiv.org/abs/\1">\g<0></a>'
    items = "".join(
        f"<dt>[{markup.escape(mark)}]</dt><dd>{_ARXIV.sub(link, markup.escape(text))}</dd>"
        for mark, text in texts.items()
    )
    return f'<h3>{markup.escape(title)}</h3>\n<dl class="legend">{items}</dl>'


def _draw_states(states):
    items = []
    for state in states:
        name = markup.escape(state.name)
        if state.report:
            name = f'<a href="{markup.escape(parse.quote(state.report))}">{name}</a>'
        items.append(f"<li>{name}: {markup.escape(state.text)}</li>")
    return f"<ul>{''.join(items)}</ul>"
