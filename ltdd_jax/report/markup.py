"""Pieces of HTML. What they are given is escaped here, unless an argument is said to be HTML."""

import base64
import html
import re
from collections.abc import Sequence

# Control characters have no place in HTML; directions would turn the text around them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: object) -> str:
    """The text without characters that do not print; for HTML still to be escaped."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def escape(text: object) -> str:
    """Text as HTML, also within quoted attributes."""
    return html.escape(clean(text))


def paragraph(text: str, css: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_css(css)}>{escape(text)}</p>"


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page, with a title to which the list of contents can lead.

    Args:
      name: its id.
      title: text.
      *parts: HTML.
    """
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}">\n<h2>{escape(title)}</h2>\n{body}\n</section>'


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    chosen: int | None = None,
    css: str = "",
) -> str:
    """A table that scrolls by itself where the window is narrower.

    Args:
      header: of the columns; the first column names the rows.
      rows: text.
      caption: what it shows.
      chosen: row to stand out.
      css: class.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = []
    for number, (name, *cells) in enumerate(rows):
        body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        mark = _css("chosen" if number == chosen else "")
        lines.append(f'<tr{mark}><th scope="row">{escape(name)}</th>{body}</tr>')
    label = escape(caption)
    # The caption stands outside of what scrolls, or it would be as wide as the table.
    return (
        f'<figure class="table"><figcaption>{label}</figcaption>\n'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f'<table{_css(css)} aria-label="{label}">\n<thead><tr>{head}</tr></thead>\n'
        "<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div></figure>"
    )


def fold(title: str, *parts: str) -> str:
    """HTML that is shown on request; the browser does it without a script."""
    return f"<details><summary>{escape(title)}</summary>\n" + "\n".join(parts) + "\n</details>"


def code(text: str, *, wrap: bool = False) -> str:
    """Text as it is; long lines scroll, or wrap."""
    lines = "\n".join(map(escape, text.splitlines()))
    return f'<pre{_css("wrap" if wrap else "")} tabindex="0"><code>{lines}</code></pre>'


def figure(drawing: str, caption: str) -> str:
    """A drawing (HTML) above its caption."""
    return f"<figure>\n{drawing}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def image(content: bytes, kind: str, alt: str) -> str:
    """A picture within the page.

    Args:
      content: of a file.
      kind: "png" or "jpeg".
      alt: what it shows, for those who do not see it.
    """
    data = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'


def _css(name):
    return f' class="{name}"' if name else ""
