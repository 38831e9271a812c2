"""What the README and the CI script say works as it stands there."""

import inspect
import pathlib
import re
import types

import pytest

import ltdd_jax
from ltdd_jax import config as configs
from ltdd_jax.records import flatten
from tests import documents

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_LINES = 160


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
SETUP = "python3 -m venv .venv && .venv/bin/pip install -e "


@pytest.mark.parametrize(
    ("what", "installs", "runs"),
    [
        ("main job", ".", ".venv/bin/python -m ltdd_jax.main --config=configs/digits_lt.py"),
        ("tests", "'.[test]'", ".venv/bin/python -m pytest -n 2"),
    ],
)
def test_one_line_sets_up_and_runs(what, installs, runs):
    """Breaks when one of the two commands is no longer a single line that starts from nothing."""
    assert COMMANDS.count(f"{SETUP}{installs} && {runs}") == 1, what


def test_ci_runs_the_test_command_of_the_readme():
    """Breaks when the script takes another line than the test command out of the README."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"^test_command=\$\(grep -e '(.*)' README.md\)$", script, re.MULTILINE)
    (line,) = [line for line in README.splitlines() if pattern in line]
    assert line in COMMANDS and line.endswith("-m pytest -n 2")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MAX_LINES, "move details to docs/"


def test_files_named_in_the_readme_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    named = re.findall(r"--config=(configs/\w+\.py)", README)
    missing = [name for name in {*links, *named} if not (ROOT / name).exists()]
    assert len(named) > 3 and missing == []


def test_fields_named_in_the_readme_exist():
    named = re.findall(r"--config\.([\w.]+)", README)
    unknown = set(named) - set(flatten(configs.base_config().to_dict()))
    assert len(named) > 4 and unknown == set()


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    """The working directory holds the files of a run whose distilled images are real ones."""
    documents.write_run(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_jax_example(finished_run):
    """Breaks when a name in the example changes, or when test images are not whitened."""
    (code,) = [block for block in blocks("python") if "evaluate_dataset" in block]
    assert len(code.strip().splitlines()) <= 6
    names = {}
    with documents.as_for_a_user():
        exec(code, names)
    assert names["result"]["mean"] > 50


def test_array_example(monkeypatch):
    """Breaks when the call of the example is not one that the function takes."""
    (code,) = [block for block in blocks("python") if "distill_dataset" in block]
    called = {}
    real = inspect.signature(ltdd_jax.distill_dataset)
    stand_in = types.SimpleNamespace(
        distill_dataset=lambda *args, **kwargs: called.update(real.bind(*args, **kwargs).arguments)
    )
    exec(code, {"ltdd_jax": stand_in, "images": "images", "labels": "labels"})
    assert called.keys() == {"images", "labels", "images_per_class", "budget"}
