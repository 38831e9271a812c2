"""benchmarks/method_cost.py: what is counted for a method, without pictures or training."""

import pathlib
import runpy
import sys

import pytest

from ltdd_jax import config as configs

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def module():
    """The script, which is in no package."""
    return runpy.run_path(str(ROOT / "benchmarks" / "method_cost.py"))


def make_config(method, **fields):
    """A small cell of one method, distilled with the smallest network there is."""
    config = runpy.run_path(str(ROOT / "configs" / "digits_lt.py"))["get_config"](f"smoke,{method}")
    config.net.name, config.evaluation.blocks = "mlp", ("i",)
    config.update_from_flattened_dict({name.replace("__", "."): v for name, v in fields.items()})
    configs.validate(config)
    return config


def count(module, method, counts=(40, 20, 10), **fields):
    """The numbers of one method as floats."""
    sets = module["make_sets"](counts, (8, 8, 1), 30)
    found = module["count"](make_config(method, **fields), sets, 1e9)
    return {name: float(found[name]) for name in module["COLUMNS"][2:]}


def test_experts_are_what_methods_share(module):
    """Breaks when experts are counted as the method's own, or not with their number."""
    none = count(module, "random")
    one = count(module, "dam_ed", experts__num_experts=1)
    two = count(module, "dam_ed", experts__num_experts=2)
    assert none["shared_flop"] == 0
    assert two["shared_flop"] == pytest.approx(2 * one["shared_flop"], rel=1e-3)
    assert two["own_flop"] == one["own_flop"]


def test_seconds_are_work_by_rate(module):
    """Breaks when baselines count as the method's, or work is left out of the seconds."""
    found = count(module, "dam_ed")
    expected = (found["shared_flop"] + found["own_flop"]) / 1e9
    assert found["seconds_at_rate"] == pytest.approx(expected, abs=0.5 + 1e-3 * expected)


def test_counts_without_pictures(module, tmp_path, monkeypatch):
    """Breaks when the sizes of the command line do not arrive, or data are looked for."""
    out = tmp_path / "cost.csv"
    arguments = ["--config", str(ROOT / "configs" / "cifar10_lt.py"), "--methods=random"]
    monkeypatch.setattr(
        sys, "argv", ["method_cost.py", *arguments, "--side=8", "--largest=100", f"--out={out}"]
    )
    module["main"]()
    header, row = out.read_text().splitlines()
    assert header.split(",") == list(module["COLUMNS"])
    assert row.startswith("random,random real images,0,")
