"""The notebooks' sources run, and the notebooks are what the sources say."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
# Plots are made and not looked at; without matplotlib every one of its functions does nothing.
STUB = "def __getattr__(name):\n    return lambda *args, **kwargs: None\n"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source_runs(source, tmp_path):
    """Breaks when a notebook uses a name or a behaviour of the package that is gone."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling takes longer than computing
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    if importlib.util.find_spec("matplotlib") is None:
        (tmp_path / "stub" / "matplotlib").mkdir(parents=True)
        (tmp_path / "stub" / "matplotlib" / "__init__.py").touch()
        (tmp_path / "stub" / "matplotlib" / "pyplot.py").write_text(STUB)
        paths = [str(tmp_path / "stub"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    else:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run(
        [sys.executable, str(source)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_has_the_code_of_its_source(source):
    """Breaks when a source was changed and its notebook not made again."""
    notebook = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    text = source.read_text(encoding="utf-8")
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells and all(cell in text for cell in cells)
    outputs = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(out["output_type"] != "error" for cell in outputs for out in cell)
    code = [part.partition("\n")[2] for part in text.split("\n# %%") if not part.startswith(" [")]
    assert len(cells) == len(code) - 1  # the first part is the header
