"""What is said that a run computes: breaks when it is not what an evaluation really trains."""

import dataclasses
import functools
import types

import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.distill.method import Teacher
from ltdd_jax.pipeline import artefacts, distill, evaluate, labels, protocols, work
from ltdd_jax.runtime import interrupt
from tests.pipeline import fake_teachers, small_run


class Counter:
    """Stands for the trainers: counts the images of all epochs and networks of every row."""

    def __init__(self):
        self.seen = {}

    def get(self, row, num_epochs=0):
        epochs = protocols.count_epochs(row.block, num_epochs or row.num_epochs)

        def train(job, data, rates):
            images = len(rates) * epochs * row.num_rows
            self.seen[row.name] = self.seen.get(row.name, 0) + images
            return rates

        return types.SimpleNamespace(train=train)

    def predict(self, row, rates, images):
        return np.zeros((len(rates), len(images)), np.int32)


# Settings of the evaluation, the labels of the set, and the root of how many pictures an image of
# it holds.
EVALUATIONS = [
    ({}, "none", 1),
    ({"tuning_epochs": 2}, "teacher", 1),
    ({"tuning_epochs": 2, "num_seeds": 3, "full_num_epochs": 0}, "none", 2),
    ({"tuning_epochs": 9, "num_seeds": 1, "blocks": ("i", "ii")}, "teacher", 1),
    ({"baseline_rates": (0.03,), "blocks": ("i", "ii"), "tuning_epochs": 2}, "views", 2),
    ({"blocks": ("ii",)}, "none", 1),
    ({"networks": "mlp,convnet", "protocols": "sgd,adam"}, "none", 2),
    ({"rows": ("full_real",), "baseline_rates": (0.01, 0.03), "num_seeds": 3}, "none", 1),
    ({"rows": ("initial",), "blocks": ("i", "ii"), "networks": "mlp"}, "none", 1),
    ({"rows": ("distilled",), "networks": "mlp"}, "teacher", 1),
    ({"method": "random", "blocks": ("i", "ii"), "rows": ("distilled",)}, "none", 1),
    ({"method": "rded", "extra_rows": ("8bit",), "blocks": ("i", "ii")}, "none", 1),
    ({"method": "rded", "rows": ("distilled",)}, "none", 1),
    ({"method": "rded", "rows": ("initial_at_baseline_rate",)}, "none", 1),
    ({"rows": ("initial_at_baseline_rate",), "blocks": ("i", "ii")}, "none", 2),
    ({"method": "rded"}, "teacher", 1),
    ({"method": "rded", "rows": ("initial",), "blocks": ("i", "ii")}, "teacher", 1),
    ({"method": "random", "rows": ("initial", "full_real"), "blocks": ("i", "ii")}, "none", 1),
    ({"blocks": ("i", "ii"), "rows": ("full_real",)}, "none", 1),
]


@pytest.mark.parametrize(("settings", "relabel", "partition"), EVALUATIONS)
def test_as_much_is_counted_as_is_trained(tmp_path, monkeypatch, settings, relabel, partition):
    """Breaks when the comparison of rates has other epochs, or a row is left out or counted twice,
    such as random real images with soft labels; or when these are taken for as many as the
    pictures in the images of a set.
    """
    network = nets.build("convnet", image_shape=(2, 2, 1), num_classes=3, width=4, depth=1)
    method = settings.get("method", "dam_ed")
    fields = {f"evaluation__{n}": value for n, value in settings.items() if n != "method"}
    fields |= {"labels__relabel": relabel, "labels__views": 2, "distill__ipc": small_run.IPC}
    fields["distill__method"] = method
    fields |= {"teacher__nets": ("mlp",), "student__learning_rates": (0.01, 0.02, 0.03)}
    run = small_run.make_run(tmp_path, network, **fields)
    run = dataclasses.replace(run, stop=interrupt.StopRequest())
    sets = small_run.write_sets(run, partition)
    if method != "dam_ed":  # they end as what they begin as
        of_rows = artefacts.read_set(run, artefacts.FINAL).labels
        artefacts.write_set(run, sets[artefacts.FINAL], of_rows, artefacts.INITIAL)
    apply = types.SimpleNamespace(apply=lambda params, x: x.reshape(len(x), -1) @ params)
    fake_teachers.install(monkeypatch, Teacher(apply, np.eye(4, 3, dtype=np.float32)))
    labels.run_relabel(run)
    counter = Counter()
    monkeypatch.setattr(evaluate, "Trainers", lambda run: counter)
    evaluate.run_evaluate(run)

    method = dataclasses.replace(distill.make_method(run), partition=partition)
    expected = {row.name: work.count_row(run, row) for row in work.list_baselines(run, method)}
    real = {name: n for name, n in counter.seen.items() if "real" in name}
    assert real.keys() == expected.keys()
    others = sum(n for name, n in counter.seen.items() if name not in real)
    asks = "random_real" in settings.get("rows", ("random_real",))
    assert ("random_real_soft" in real) == (relabel == "teacher" and asks)
    mlp, slim = (
        nets.build("mlp", image_shape=(2, 2, 1), num_classes=3, **width).sizes.flops
        for width in ({}, {"width": run.config.net.width})
    )
    for name, images in real.items():
        own = mlp if "@mlp" in name else network.sizes.flops
        asked = slim if name == "ii_random_real" and relabel != "views" else 0
        assert expected[name] == images * (3 * own + asked), name
    found = work.count_flops(run, method)
    if not settings.get("networks"):
        taught = sum(n for name, n in counter.seen.items() if name not in real and "ii_" in name)
        asked = slim if relabel != "views" else 0
        assert found["evaluate"] == others * 3 * network.sizes.flops + taught * asked
    assert found["baselines"] == sum(expected.values())


def test_every_network_is_built_once(tmp_path, monkeypatch):
    """Breaks when a plan builds large networks anew for each row that it counts."""
    built, build = [], nets.build
    own = nets.build("convnet", image_shape=(2, 2, 1), num_classes=3, width=4, depth=1)
    monkeypatch.setattr(nets, "build", lambda *a, **k: built.append(a[0]) or build(*a, **k))
    other = functools.partial(nets.MLP, width=3)  # that no other test has built
    monkeypatch.setattr(nets, "REGISTRY", dict(nets.REGISTRY, lenet=other))
    run = small_run.make_run(tmp_path, own, evaluation__networks="lenet")
    method = distill.make_method(run)
    assert work.count_flops(run, method) == work.count_flops(run, method)
    assert built == ["lenet"]


def test_every_live_teacher_is_counted_by_its_own_size(tmp_path):
    """Breaks when a row that asks several networks, or wider ones, is said to cost less."""
    network = nets.build("mlp", image_shape=(2, 2, 1), num_classes=3)

    def count(*taught_by, **fields):
        fields |= {"distill__method": "random", "distill__ipc": 2, "net__name": "mlp"}
        fields |= {"teacher__nets": taught_by, "student__num_epochs": 7, "evaluation__num_seeds": 5}
        run = small_run.make_run(tmp_path, network, evaluation__blocks=("ii",), **fields)
        return work.count_flops(run, distill.make_method(run))["evaluate"]

    views, of_student = 7 * 5 * 6, 3 * network.sizes.flops
    wide = nets.build("convnet", image_shape=(2, 2, 1), num_classes=3, width=9, depth=1)
    slim = nets.build("mlp", image_shape=(2, 2, 1), num_classes=3, width=9)
    both = slim.sizes.flops + wide.sizes.flops
    sizes = {"teacher__width": 9, "teacher__depth": 1}
    assert count("mlp", "convnet", **sizes) == views * (of_student + both)
    assert count("mlp", labels__relabel="views") == views * of_student


def test_every_row_that_is_asked_for_besides_is_counted(tmp_path):
    """Breaks when an evaluation on large networks, or of many sets, is called a short run."""
    network = nets.build("convnet", image_shape=(2, 2, 1), num_classes=3, width=4, depth=1)

    def count(**fields):
        fields |= {"trajectory__num_iterations": 9, "distill__ipc": 2}
        run = small_run.make_run(tmp_path, network, evaluation__num_seeds=5, **fields)
        found = work.count_flops(run, distill.make_method(run))
        return np.array([found["evaluate"], found["baselines"]])

    updates, none = 6 * 5 * 6 * 3, count()  # epochs, seeds, images, passes
    other = nets.build("mlp", image_shape=(2, 2, 1), num_classes=3).sizes.flops
    first = count(evaluation__rows=("initial",))
    again = count(evaluation__rows=("initial_at_baseline_rate",))
    final = count(evaluation__rows=("distilled", "full_real"))
    np.testing.assert_allclose(first[0] + again[0] + final[0], none[0])
    np.testing.assert_allclose([first[0], final[0]], updates * network.sizes.flops)
    np.testing.assert_allclose(again[1] + final[1], none[1])
    assert first[1] == 0, "at the rate of the set"
    curve = count(evaluation__curve=True, distill__keep_steps=3)
    np.testing.assert_allclose(curve - none, [2 * updates * network.sizes.flops, 0])
    elsewhere = count(evaluation__networks="mlp")
    np.testing.assert_allclose(elsewhere - none, 2 * [updates * other])
    adam = count(evaluation__networks="convnet,mlp", evaluation__protocols="sgd,adam")
    both = updates * (2 * other + network.sizes.flops)
    np.testing.assert_allclose(adam - none, 2 * [both])
