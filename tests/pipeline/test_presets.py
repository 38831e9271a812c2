"""Breaks when a method cannot go the whole way on the smoke config, or trains what is there."""

import importlib.util
import json
import pathlib

import numpy as np

from ltdd_jax import pipeline
from ltdd_jax.presets import PRESETS

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Experts with the same recipe are the same experts: method -> one with which it shares them.
SHARED = {"tesla": "mtt", "ed": "dam_ed", "dam": "dam_ed", "k_center": "dam_ed"}


def load(argument):
    spec = importlib.util.spec_from_file_location("digits_lt", ROOT / "configs" / "digits_lt.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def test_every_method_runs_side_by_side(settings, program, tmp_path, capsys):
    """One directory, one set each; experts and baselines are made once."""
    made = {}
    for method in sorted(PRESETS, key=lambda name: name != "dam_ed"):
        config = load(f"smoke,{method}")
        config.runtime.compilation_cache = str(program.cache)
        config.evaluation.num_seeds = 2
        config.evaluation.baseline_rates = (0.05,)
        pipeline.run(config, str(tmp_path / "run"), set_name=method)
        home = tmp_path / "run" / "sets" / method
        report = json.loads((home / "report.json").read_text())
        rows = set(report["results"])
        kind = PRESETS[method].section
        assert {"distilled", "random_real", "full_real"} <= rows
        assert ("initial" in rows) == (kind == "trajectory")
        page = (home / "report.html").read_text(encoding="utf-8")
        assert ("the real image it started from" in page) == (kind == "trajectory")
        assert ("selected real image" in page) == (kind == "selection")
        assert PRESETS[method].title in report["results"]["distilled"]["title"]
        assert report["config"]["distill"]["method"] == method
        with np.load(home / "synthetic" / "synthetic.npz") as archive:
            assert all(np.isfinite(archive[name]).all() for name in ("images", "label_logits"))
            made[method] = archive["images"]
        output = capsys.readouterr().out
        if method in SHARED:
            assert "representation experts: 2 of 2 are there" in output
    assert len(list((tmp_path / "run" / "baselines").glob("*.json"))) == 2  # made once
    names = list(made)
    same = [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if made[a].shape == made[b].shape and (made[a] == made[b]).all()
    ]
    assert not same, same
    experts = {path.name.split("-")[0] for path in (tmp_path / "run" / "experts").iterdir()}
    assert experts == {"representation", "classifier"}
