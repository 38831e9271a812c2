"""Breaks when the command line takes what it cannot do, or says it in more than one sentence."""

import subprocess
import sys

import pytest

from ltdd_jax.table import __main__ as program


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=nowhere.py"], "no file nowhere.py"),
        (["--config=digits:cy"], "no variant 'cy'"),
        (["--config=digits", "--only=x*"], "--only=x* matches no cell; there are"),
        (["--config=digits", "--stage=all"], "unexpected argument '--stage=all'"),
        (["--config=digits", "--config.net.widht=3"], "did you mean net.width"),
        (["--config=digits", "--config.net.width=wide"], "net.width=wide"),
        (["--config=digits", "--workdir=s4://nowhere/x", "--only=mtt"], "s4"),
    ],
)
def test_mistakes_are_one_sentence_and_code_2(arguments, words, capsys):
    assert program.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ") and said.count("\n") == 1


def test_help_needs_nothing(capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(["--help"])
    assert caught.value.code == 0 and "--only PATTERN" in capsys.readouterr().out


def test_both_spellings_of_a_dry_run_are_known():
    for spelling in ("--dry_run", "--dry-run"):
        args, overrides = program.parse(["--config=x", spelling, "--config.net.width=3"])
        assert args.dry_run and overrides == {"net.width": "3"}


def test_nothing_is_imported_before_the_table_is_known_to_be_right():
    """Breaks when --help waits for JAX."""
    code = "import sys, ltdd_jax.table.__main__ as m; assert 'jax' not in sys.modules, 'jax'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
