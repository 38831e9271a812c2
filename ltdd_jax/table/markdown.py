"""The table in markdown (table.md)."""

from ltdd_jax.table.layout import Entry, Page, Sheet


def render_markdown(page: Page) -> str:
    """A page of tables, with notes and references."""
    lines = [f"# {_escape(page.title)}", ""]
    for sheet in page.sheets:
        lines += _render_sheet(sheet)
    if page.notes:
        lines += ["Differences from the published set-up:", ""]
        lines += [f"- [{mark}] {_escape(text)}" for mark, text in page.notes.items()] + [""]
    if page.references:
        lines += ["Published numbers:", ""]
        lines += [f"- [{mark}] {_escape(text)}" for mark, text in page.references.items()] + [""]
    return "\n".join(lines)


def _render_sheet(sheet: Sheet) -> list[str]:
    align = ["---", *["---:"] * (len(sheet.header) - 1)]
    rows = [sheet.header, align, *([_show(entry) for entry in row] for row in sheet.rows)]
    return [
        f"## {_escape(sheet.title)}",
        "",
        _escape(sheet.caption),
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _show(entry: Entry) -> str:
    marks = f" [{', '.join(entry.marks)}]" if entry.marks else ""
    return f"{_escape(entry.text)}{marks}"


def _escape(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
