r"""The table in LaTeX (table.tex), to be \input; it needs the package booktabs."""

import re

from ltdd_jax.table.layout import ABSENT, Entry, Page, Sheet

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "×": r"$\times$",  # noqa: RUF001
    ABSENT: "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_PATTERN = re.compile("|".join(map(re.escape, _SPECIAL)))


def render_latex(page: Page) -> str:
    """A table environment for each sheet; notes and references stand below the table they mark."""
    parts = [f"% {' '.join(page.title.split())}\n% Needs \\usepackage{{booktabs}}."]
    return "\n\n".join([*parts, *(_render_sheet(sheet, page) for sheet in page.sheets)]) + "\n"


def _render_sheet(sheet: Sheet, page: Page) -> str:
    used = [mark for row in sheet.rows for entry in row for mark in entry.marks]
    legend = {**page.notes, **page.references}
    below = [
        f"\\textsuperscript{{{mark}}}~{escape(text)}."
        for mark, text in legend.items()
        if mark in used
    ]
    body = [_render_row(row) for row in sheet.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            f"\\caption{{{escape(sheet.title)}. {escape(sheet.caption)}}}",
            f"\\label{{tab:{sheet.name}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(sheet.header) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape, sheet.header)) + r" \\",
            r"\midrule",
            *body[:1],
            *([r"\midrule"] if len(body) > 1 else []),
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\par\smallskip\footnotesize " + " ".join(below)] if below else []),
            r"\end{table}",
        ]
    )


def _render_row(row: tuple[Entry, ...]) -> str:
    return " & ".join(map(_show, row)) + r" \\"


def _show(entry: Entry) -> str:
    marks = f"\\textsuperscript{{{','.join(entry.marks)}}}" if entry.marks else ""
    return f"{escape(entry.text)}{marks}"


def escape(text: str) -> str:
    """Plain text as LaTeX."""
    return _PATTERN.sub(lambda match: _SPECIAL[match[0]], " ".join(text.split()))
