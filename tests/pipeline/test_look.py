"""Breaks when accuracies of experts are wrong or missing, or a failed second stage is not told."""

import json

import numpy as np
import pytest

from ltdd_jax.pipeline import problem
from ltdd_jax.runtime import files
from tests.pipeline import runs, tiny_config


def read_accuracies(finished) -> dict[str, np.ndarray]:
    """Accuracy of the last snapshots, [experts, test classes], from the arrays on disk."""
    config = tiny_config.get_config()
    config.data.whiten = "on"  # what "auto" is for such images
    data = problem.load_problem(config, *problem.load_sets(config))
    arrays = {k: np.frombuffer(v, dtype).reshape(shape)
              for k, (dtype, shape, v) in runs.snapshots(finished / "experts").items()}  # fmt: skip

    def read(kind, expert, epoch):
        tree = {}
        for name, array in arrays.items():
            where, number, step, *path = name.split(".")
            if where.startswith(kind) and (number, step) == (f"expert_{expert:04d}", epoch):
                node = tree
                for part in path[:-1]:
                    node = node.setdefault(part, {})
                node[path[-1]] = array
        return tree

    found = {"representation": [], "classifier": []}
    for expert in range(2):
        whole = read("representation", expert, "0005")
        head = read("classifier", expert, "0003")
        for kind, params in (("representation", whole), ("classifier", whole | head)):
            classes = np.argmax(data.network.apply(params, data.test_images), axis=1)
            right = classes == data.test.labels
            found[kind].append([100 * right[data.test.labels == k].mean() for k in range(10)])
    return {kind: np.array(values) for kind, values in found.items()}


def test_accuracies_are_those_of_the_last_snapshots(finished):
    report = json.loads((finished / "report.json").read_text())
    lines = [json.loads(x) for x in (finished / "metrics.jsonl").read_text().splitlines()]
    page = (finished / "report.md").read_text()
    for kind, expected in read_accuracies(finished).items():
        summary = report["experts"][kind]
        np.testing.assert_allclose(summary["per_class"], expected.mean(axis=0), atol=0.3)
        assert summary["balanced"] == pytest.approx(expected.mean(), abs=0.3)
        (line,) = [line for line in lines if line["stage"] == f"{kind}_accuracy"]
        assert [line[f"class_{k}"] for k in range(10)] == summary["per_class"]
        assert (line["balanced"], line["few"]) == (summary["balanced"], summary["few"])
        assert f"| {kind} experts, epoch {summary['num_epochs']} | {summary['mean']:.1f} |" in page


@pytest.mark.parametrize(("accuracy", "is_warned"), [(0.0, True), (100.0, False)])
def test_worse_second_stage_is_told_before_it_is_built_on(copy, run, capfd, accuracy, is_warned):
    workdir = copy(without=("distill", "evaluate"))
    (path,) = (workdir / "accuracy").glob("classifier-*.json")
    files.write_sealed(path, {"num_experts": 2, "per_expert_per_class": [[accuracy] * 10] * 2})
    run(workdir, "experts")
    output = capfd.readouterr().out
    assert f"classifier experts, accuracy in %: balanced {accuracy:.1f}" in output
    assert "representation experts, accuracy in %: balanced" in output
    found = f"warning: classifier experts get {accuracy:.1f} % of the few-shot classes" in output
    assert found is is_warned
