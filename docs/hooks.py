"""What MkDocs adds when it builds the site: tables of settings and methods, links, results."""

import pathlib
import posixpath
import re

from ltdd_jax import config as _registers_all_families  # noqa: F401
from ltdd_jax.fields import FIELDS, Field, flatten_fields
from ltdd_jax.presets import PRESETS

DOCS = pathlib.Path(__file__).parent
_FIELDS, _METHODS = "<!-- every field of the config -->", "<!-- every method -->"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)\s]*)\)")


def on_config(config):
    """Pages in docs/results/ stand in the navigation without being listed in mkdocs.yml."""
    pages = sorted(path.name for path in (DOCS / "results").glob("*.md") if path.stem != "index")
    for section in config["nav"]:
        if "Results" in section:
            section["Results"] += [f"results/{name}" for name in pages]
    return config


def on_page_markdown(markdown, page, config, files):
    """Fills in the table of settings; links to files that are no pages become their names."""
    del config, files
    text = markdown.replace(_FIELDS, render_fields()).replace(_METHODS, render_methods())
    return name_files(text, posixpath.dirname(page.file.src_uri))


def name_files(text: str, folder: str) -> str:
    """Replaces links that lead out of docs/ by the path in the repository.

    Args:
      text: Markdown of a page.
      folder: of the page, below docs/; "" for docs/ itself.
    """

    def name(match):
        target = posixpath.normpath(posixpath.join("docs", folder, match[2].partition("#")[0]))
        if target.startswith("docs/"):
            return match[0]
        shown = match[1].strip("`")
        return f"`{target}`" if shown in target else f"{match[1]} (`{target}` in the repository)"

    return _LINK.sub(name, text)


def render_fields() -> str:
    """Markdown with every field: a section each, a row with default, allowed values, meaning."""
    sections: dict[str, list[tuple[str, Field]]] = {}
    for path, field in flatten_fields(FIELDS).items():
        sections.setdefault(path.partition(".")[0] if "." in path else "", []).append((path, field))
    parts = []
    for section, fields in sections.items():
        parts.append(f"## {section or 'Top level'}\n")
        parts.append("| field | default | allowed | meaning |\n| --- | --- | --- | --- |")
        for path, field in fields:
            default = f"`{field.default!r}`" if field.default != "" else "empty"
            allowed = field.rule.text.replace("one of , ", "empty, ") or "anything"
            row = (f"`{path}`", default, allowed, field.text)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        parts.append("")
    return "\n".join(parts)


def render_methods() -> str:
    """Markdown with every method: its name, what it is, its family, where it comes from."""
    rows = ["| name | method | family | source |", "| --- | --- | --- | --- |"]
    for name, preset in PRESETS.items():
        rows.append(f"| `{name}` | {preset.title} | `{preset.section}` | {preset.reference} |")
    return "\n".join(rows) + "\n"
