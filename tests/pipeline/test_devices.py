"""Several devices change where things are computed, not what; too little memory is refused."""

import jax
import numpy as np
import pytest

from ltdd_jax import pipeline
from ltdd_jax.runtime import mesh
from ltdd_jax.types import UserError


def read_set(workdir):
    with np.load(workdir / "synthetic" / "synthetic.npz") as archive:
        return {name: archive[name] for name in ("images", "label_logits", "step_size")}


@pytest.mark.slow
def test_pairs_and_experts_over_devices_equal_one_device(run, tmp_path, monkeypatch):
    """Breaks when a device gets another's expert, pair or key; 2 experts, 4 pairs, 8 devices."""
    assert jax.local_device_count() == 8
    used = []
    spread = mesh.spread
    monkeypatch.setattr(
        mesh,
        "spread",
        lambda f, axes, devices: used.append(devices.size) or spread(f, axes, devices),
    )
    fields = {"trajectory__pairs_per_iteration": 4, "trajectory__num_iterations": 3}
    run(tmp_path / "pairs", stage="all", **fields)
    assert sorted(set(used)) == [2, 4]  # experts and evaluation; pairs

    make_mesh = mesh.make_mesh
    monkeypatch.setattr(mesh, "make_mesh", lambda count, **_: make_mesh(1))
    run(tmp_path / "one", stage="all", **fields)
    several, one = read_set(tmp_path / "pairs"), read_set(tmp_path / "one")
    for name, values in several.items():
        np.testing.assert_allclose(values, one[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("8", "1"), ("1", "8")])
def test_trajectories_of_other_devices_are_read(program, finished, tmp_path, before, after):
    """Breaks when what is on disk depends on the devices that wrote it."""
    workdir = tmp_path / "run"
    program.run(workdir, "--stage=experts", JAX_NUM_CPU_DEVICES=before)
    output = program.run(workdir, JAX_NUM_CPU_DEVICES=after)
    assert "representation experts: 2 of 2 are there" in output
    assert "classifier experts: 2 of 2 are there" in output
    found, expected = read_set(workdir), read_set(finished)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_an_epoch_is_fetched_while_the_next_runs(run, tmp_path, monkeypatch):
    """Breaks when the devices wait for the host between two epochs that are not saved."""
    order = []
    start, fetch = mesh.start_fetch, mesh.fetch
    monkeypatch.setattr(mesh, "start_fetch", lambda tree: order.append("start") or start(tree))
    monkeypatch.setattr(mesh, "fetch", lambda tree: order.append("fetch") or fetch(tree))
    fields = {"runtime__checkpoint_epochs": 10, "runtime__checkpoint_minutes": 0.0}
    run(tmp_path / "run", stage="experts", experts__classifier__num_epochs=1, **fields)
    # `fetch` starts the copy itself, if nobody has: the snapshot of the start, a state to save.
    whole = ["fetch", "start"]
    later = ["start", *whole] * 3
    assert order[:17] == [*whole, "start", "start", *whole, *later, *whole]


def test_too_little_memory_is_refused_with_advice(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mesh, "free_memory", lambda: 1000)
    monkeypatch.setattr(
        pipeline, "run_experts", lambda *_: pytest.fail("the estimate must come first")
    )
    with pytest.raises(UserError, match=r"needs about .* lower --config\.trajectory\.batch_size"):
        run(tmp_path / "run")
