"""Breaks when the wheel lacks a file, or something works in the checkout only.

Slow: builds the wheel and installs it into a fresh environment, whose other packages are those of
this one. `.ci/run` runs it by name.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ("ltdd_jax", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
# Tests that need nothing of the checkout but themselves.
TESTS = ("test_api.py", "test_config.py", "export/test_export.py")

pytestmark = pytest.mark.slow


def call(*command, cwd, **environment):
    """What a command prints, with a list of its environment variables changed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder with the programs of an environment into which the wheel is installed."""
    place = tmp_path_factory.mktemp("wheel")
    (place / "source").mkdir()
    for name in SOURCES:  # a copy, so that nothing is left in the checkout
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / "source" / name)
    pip = [sys.executable, "-m", "pip"]
    call(*pip, "wheel", "-q", "--no-deps", "-w", place, "./source", cwd=place)
    (wheel,) = place.glob("*.whl")
    call(sys.executable, "-m", "venv", "--without-pip", "env", cwd=place)
    (libraries,) = (place / "env").glob("lib/python*/site-packages")
    # A .pth file adds a folder behind this one and does not follow that folder's own .pth files,
    # so that an editable installation there stays unseen.
    others = dict.fromkeys(
        path for path in sys.path if path.endswith("-packages") and os.path.isdir(path)
    )
    (libraries / "others.pth").write_text("\n".join([sysconfig.get_path("purelib"), *others]))
    python = place / "env" / "bin" / "python"
    call(*pip, f"--python={python}", "install", "-q", "--no-deps", wheel, cwd=place)
    return python.parent


def test_the_wheel_has_configs_types_and_no_tests(installed):
    (package,) = installed.parent.glob("lib/python*/site-packages/ltdd_jax")
    configs = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert configs <= {path.name for path in (package / "configs").iterdir()}
    modules = {path.relative_to(ROOT / "ltdd_jax") for path in (ROOT / "ltdd_jax").rglob("*.py")}
    assert {name for name in modules if not (package / name).exists()} == set()
    assert (package / "py.typed").exists()
    assert not (package.parent / "tests").exists() and not (package.parent / "configs").exists()


def test_the_command_finds_packaged_configs(installed, tmp_path):
    shown = call(installed / "ltdd", "--config=digits_lt:smoke", "--dry_run", cwd=tmp_path)
    assert "digits" in shown and "cost:" in shown and list(tmp_path.iterdir()) == []
    assert "usage: ltdd export" in call(installed / "ltdd", "export", "--help", cwd=tmp_path)


def test_tests_pass_against_the_wheel(installed, tmp_path):
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("*.npz"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shown = call(
        *(installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *(f"tests/{name}" for name in TESTS),
        cwd=tmp_path,
    )
    where = call(installed / "python", "-c", "import ltdd_jax; print(ltdd_jax)", cwd=tmp_path)
    assert str(installed.parent) in where and " passed" in shown
