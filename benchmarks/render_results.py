"""Makes the tables and pictures of README.md and docs/results/*.md from the numbers in results.csv.

    python benchmarks/render_results.py [--check]

`result_tables.py` and `draw_results.py` say which comments of a page stand for what; text outside
of these is left alone. `--check` writes nothing and fails where a table differs from the numbers.
"""

import argparse
import pathlib
import re
import sys

import measured
import result_tables

from ltdd_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
_PICTURE = re.compile(r"<!-- picture: (\w+)((?: \w+=\S+)*) -->\n!\[[^\]]*\]\(([^)]+)\)")


def find_pages() -> list[pathlib.Path]:
    """README.md and the pages of results."""
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "results").glob("*.md"))]


def find_pictures(page: pathlib.Path) -> list[tuple[str, dict[str, str], pathlib.Path]]:
    """(kind, options, file) of every picture that a page asks for."""
    text = page.read_text(encoding="utf-8")
    return [
        (kind, dict(word.split("=", 1) for word in words.split()), page.parent / link)
        for kind, words, link in _PICTURE.findall(text)
    ]


def render_tables(*, write: bool) -> list[pathlib.Path]:
    """The pages whose tables are not what the numbers say; these are written anew if asked for."""
    numbers = measured.read(measured.RESULTS)
    measured.check(numbers)
    changed = []
    for page in find_pages():
        text = page.read_text(encoding="utf-8")
        rendered = result_tables.render_page(text, numbers)
        if rendered != text:
            changed.append(page)
            if write:
                page.write_text(rendered, encoding="utf-8")
    return changed


def draw_pictures() -> list[pathlib.Path]:
    """Draws every picture that a page asks for; returns their files."""
    import draw_results  # waits for Matplotlib, which the tables do not need

    numbers = measured.read(measured.RESULTS)
    by_class = measured.read(measured.PER_CLASS, measured.ClassAccuracy)
    drawn: dict[pathlib.Path, tuple[str, dict[str, str]]] = {}
    for page in find_pages():
        for kind, words, path in find_pictures(page):
            if kind not in draw_results.PICTURES:
                known = ", ".join(draw_results.PICTURES)
                raise UserError(f"{page.name}: there is no picture {kind}; give one of {known}")
            path = path.resolve()
            if drawn.setdefault(path, (kind, words)) != (kind, words):
                raise UserError(
                    f"{page.name} asks for another picture in {path.name} than the page before; "
                    "give both pages the same options, or the picture another name"
                )
            draw_results.save(draw_results.PICTURES[kind](numbers, by_class, words), path)
    return list(drawn)


def main(argv: list[str]) -> int:
    """Exit code: 0, 1 if `--check` finds another table, 2 after one sentence on what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    try:
        changed = render_tables(write=not args.check)
        drawn = [] if args.check else draw_pictures()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in (*changed, *drawn):
        print(path.resolve().relative_to(ROOT))
    return int(args.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
