"""The notebooks' sources run, and the notebooks are what the sources say.

Running them is slow; `.ci/run` does it by name.
"""

import ast
import importlib
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


# Looks at how files of a run are opened.
INTERNAL = {"01_trajectories": {"ltdd_jax.pipeline", "ltdd_jax.pipeline.experts"}}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_names_of_the_package_exist(source):
    """Breaks when a notebook uses a name that is gone, or one that is not for users."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules, found = {}, 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ltdd_jax"):
            public = node.module in ("ltdd_jax", "ltdd_jax.data", "ltdd_jax.geometry")
            assert public or node.module in INTERNAL.get(source.stem, ()), node.module
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(name) if public else False:
                    assert alias.name != "pipeline" or name in INTERNAL.get(source.stem, ())
                    modules[alias.name] = importlib.import_module(name)
                else:
                    assert hasattr(importlib.import_module(node.module), alias.name), name
        if isinstance(node, ast.Import) and node.names[0].name == "ltdd_jax":
            modules["ltdd_jax"] = importlib.import_module("ltdd_jax")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), f"{node.value.id}.{node.attr}"
            found += module is not None
    assert found >= 2


@pytest.mark.slow
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
