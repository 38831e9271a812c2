"""What the README and the CI script say works as it stands there."""

import contextlib
import inspect
import json
import pathlib
import re
import types

import jax
import numpy as np
import pytest

import ltdd_jax
from ltdd_jax import config as configs
from ltdd_jax import export
from ltdd_jax.data import long_tail, normalize, sources
from ltdd_jax.export import __main__ as export_command
from ltdd_jax.records import flatten

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_files_named_in_the_readme_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    named = re.findall(r"--config=(configs/\w+\.py)", README)
    missing = [name for name in {*links, *named} if not (ROOT / name).exists()]
    assert len(named) > 3 and missing == []


def test_fields_named_in_the_readme_exist():
    named = re.findall(r"--config\.([\w.]+)", README)
    unknown = set(named) - set(flatten(configs.base_config().to_dict()))
    assert len(named) > 5 and unknown == set()


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    """The working directory holds the files of a run whose distilled images are real ones."""
    train = sources.load_source("digits", "train")
    train = train.take(long_tail.select_long_tail(train.labels, train.num_classes, 20.0))
    pre = normalize.fit(train.images)
    rows = np.concatenate([np.flatnonzero(train.labels == k)[:2] for k in range(10)])
    run = tmp_path / "runs" / "digits_lt"
    (run / "synthetic").mkdir(parents=True)
    normalize.save(pre, run / "preprocessing.npz")
    np.savez(
        run / "synthetic" / "synthetic.npz",
        images=normalize.apply(pre, train.images[rows]),
        pixels=train.images[rows],
        labels=train.labels[rows],
        label_logits=10 * np.eye(10, dtype=np.float32)[train.labels[rows]],
        step_size=np.float32(0.03),
        class_names=np.asarray(train.class_names),
    )
    config = {"net": {"name": "convnet", "width": 16, "depth": 2}, "augment": {"strategy": ""}}
    (run / "set.json").write_text(json.dumps({"config": config}))
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def _as_for_a_user():
    """JAX's own settings in place of the strict ones of the suite."""
    strict = {"jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}
    before = {name: getattr(jax.config, name) for name in (*strict, "jax_debug_key_reuse")}
    for name, value in {**strict, "jax_debug_key_reuse": False}.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_jax_example(finished_run):
    """Breaks when a name in the example changes, or when test images are not whitened."""
    (code,) = [block for block in blocks("python") if "evaluate_dataset" in block]
    assert len(code.strip().splitlines()) <= 6
    names = {}
    with _as_for_a_user():
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


def test_export_command(finished_run, tmp_path):
    """Breaks when an option of the command or a format in the table has another name."""
    (command,) = [line for line in COMMANDS if "ltdd_jax.export" in line]
    assert export_command.main(command.split()[3:]) == 0
    assert len(list((tmp_path / "FOLDER" / "images").glob("*/*.png"))) == 20
    named = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert [name for name in named if name in export.FORMATS] == list(export.FORMATS)


def test_torch_example(finished_run):
    torch = pytest.importorskip("torch", reason="PyTorch is not a dependency of the tests")
    (code,) = [block for block in blocks("python") if ", torch" in block]
    torch.manual_seed(0)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other slow tests that share the cores
    names = {}
    exec(code, names)
    torch.set_num_threads(num_threads)
    test = sources.load_source("digits", "test")
    pre = normalize.load("runs/digits_lt/preprocessing.npz")
    white = names["whiten"](test.images)
    np.testing.assert_allclose(
        white.permute(0, 2, 3, 1), normalize.apply(pre, test.images), atol=1e-5
    )
    predicted = names["net"](white).argmax(dim=1).numpy()
    assert np.mean(predicted == test.labels) > 0.5
