"""Breaks when a reader cannot put a number's command together from what stands below its table."""

import html
import re
import shlex

from tests.results.made_up import make_number, measured
from tests.scripts import load_script

Commands = load_script("result_commands").Commands
LONG = "python -m ltdd_jax.main --config=configs/digits_lt.py:dam_ed --workdir=DIR --set=one"


def show(*commands, **more):
    """The items of the list below a table whose rows have these commands."""
    listed = Commands()
    numbers = [listed.refer(make_number(40.0, command=command, **more)) for command in commands]
    text = "\n".join(listed.render())
    return numbers, re.findall(r"<li>(.*) \(commit [^)]*\)(?:; [^)]*\))*</li>", text)


def put_together(items):
    """The words of each command, as a reader would find them."""
    found = []
    for item in items:
        codes = [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", item)]
        base = re.match(r"command (\d+)", item)
        if not base:
            found.append(shlex.split(codes[0]))
            continue
        words = list(found[int(base[1]) - 1])
        if " with <code>" in item:
            changed = shlex.split(codes[0])
            names = {word.partition("=")[0] for word in changed}
            words = [word for word in words if word.partition("=")[0] not in names] + changed
        if "without" in item:
            words = [word for word in words if word not in shlex.split(codes[-1])]
        found.append(words)
    return found


def test_what_is_like_an_earlier_command_is_said_by_its_differences():
    extra = "'--config.evaluation.extra_rows=()'"
    two, short = LONG.replace("one", "two"), LONG.removesuffix(" --set=one")
    tenfold = LONG + "".join(f" --config.kernel.field_{n}=1" for n in range(10))
    numbers, items = show(LONG, f"{two} {extra}", short, LONG, tenfold, "make digits <b>")
    assert numbers == ["1", "2", "3", "1", "4", "5"]
    assert items == [
        f"<code>{LONG}</code>",
        f"command 1 with <code>--set=two {extra}</code>",
        "command 1 without <code>--set=one</code>",
        f"<code>{tenfold}</code>",  # hardly shorter by its differences
        "<code>make digits &lt;b&gt;</code>",
    ]


def test_the_same_command_of_another_commit_is_an_item_of_its_own():
    listed = Commands()
    rows = [make_number(40.0, command=LONG, commit=commit) for commit in ("abc1234", "def5678")]
    assert [listed.refer(row) for row in rows] == ["1", "2"]
    assert "<li>command 1 (commit def5678)</li>" in listed.render()


def test_every_command_of_the_results_can_be_put_together():
    """Breaks when an option is lost, or one that stands twice or after && is taken for another."""
    commands = list(
        dict.fromkeys(row.command for row in measured.read(measured.FOLDER / "results.csv"))
    )
    _, items = show(*commands)
    assert len(items) == len(commands) > 30
    assert sum(item.startswith("command ") for item in items) > 10
    for words, command in zip(put_together(items), commands, strict=True):
        assert sorted(words) == sorted(shlex.split(command)), command
