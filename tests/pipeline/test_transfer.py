"""Breaks when a set cannot be judged on other networks, or they are not what they are called."""

import json

import jax
import pytest
from etils import epath

from ltdd_jax import nets
from ltdd_jax.runtime import checkpoint
from ltdd_jax.types import UserError

WAYS = {
    "evaluation__networks": "mlp,convnet",
    "evaluation__protocols": "sgd,adam",
    "evaluation__keep_networks": True,
    "evaluation__extra_rows": (),
}
KEY = jax.random.key(0)
NAMES = ("mlp", "mlp_adam", "convnet_adam")


def read_results(workdir):
    return json.loads((workdir / "report.json").read_text())["results"]


def read_networks(workdir, row, name, **sizes):
    """Fails unless the two networks of a row are of the kind `name`."""
    found = [
        path
        for part in ("evaluate", "baselines")
        for path in (workdir / part / "networks").glob(f"{row}-*")
    ]
    assert len(found) == 1
    network = nets.build(name, image_shape=(8, 8, 1), num_classes=10, **sizes)
    like = jax.eval_shape(lambda keys: jax.vmap(network.init)(keys), jax.random.split(KEY, 2))
    checkpoint.read_tree(epath.Path(found[0]), {"params": like})


def test_other_networks_and_optimisers_without_training_anything_else(copy, run):
    workdir = copy()
    before = read_results(workdir)
    stamps = {path: path.stat().st_mtime_ns for path in (workdir / "synthetic").iterdir()}
    run(workdir, "evaluate", **WAYS)
    after = read_results(workdir)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert after["distilled"]["per_seed"] == before["distilled"]["per_seed"]
    expected = {f"{row}@{name}" for row in ("distilled", "random_real") for name in NAMES}
    assert {name for name in after if "@" in name} == expected

    rate, chosen = after["distilled"]["rate"], after["random_real"]["rate"]
    assert after["distilled@mlp"]["rate"] == rate, "nothing is tuned for another network"
    assert after["random_real@mlp"]["rate"] == chosen
    assert after["distilled@mlp_adam"]["rate"] == after["random_real@mlp_adam"]["rate"] == 1e-3
    assert after["distilled@mlp"]["per_seed"] != after["distilled@mlp_adam"]["per_seed"]
    assert after["distilled@mlp"]["student"] == "mlp of its published size"

    read_networks(workdir, "random_real@mlp", "mlp")
    read_networks(workdir, "distilled@convnet_adam", "convnet", width=4, depth=1)

    page = (workdir / "report.md").read_text()
    assert "| network | optimiser | distilled set | random real images |" in page
    assert "| mlp | adam |" in page
    assert "mlp" not in page.split("| network | optimiser")[0], "not among the rows of block (i)"
    assert '<section id="networks">' in (workdir / "report.html").read_text()


def test_network_that_does_not_fit_is_refused_before_anything(copy, run):
    workdir = copy(without=("evaluate",))
    with pytest.raises(UserError, match=r"evaluation\.networks=lenet does not fit") as caught:
        run(workdir, "evaluate", evaluation__networks="mlp,lenet")
    assert "\n" not in str(caught.value)
    assert not (workdir / "evaluate").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("networks", "mlp,mpl"), ("networks", "mlp,mlp"), ("protocols", ""), ("protocols", "adamw")],
)
def test_unknown_words_are_refused(tiny, run, tmp_path, field, value):
    with pytest.raises(UserError, match=rf"--config.evaluation.{field}=\S* is not possible"):
        run(tmp_path, **{f"evaluation__{field}": value})
