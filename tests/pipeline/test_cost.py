"""What sets of one directory share: breaks when a table counts a baseline twice, or two as one."""

import pytest

from ltdd_jax.pipeline import cost, problem
from tests.pipeline import tiny_config

BOTH = ("random_real", "full_real", "ii_random_real")
TAUGHT = {"evaluation.blocks": ("i", "ii"), "teacher.nets": ("mlp",)}


@pytest.fixture(scope="module")
def sets():
    return problem.load_sets(tiny_config.get_config())


def estimate(sets, workdir, **fields):
    """The cost of a set; "__" in a field of the config stands for the dot."""
    config = tiny_config.get_config()
    config.data.whiten = "off"
    fields = {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(TAUGHT | fields)
    return cost.estimate_cost(config, sets, str(workdir), "a")


def list_baselines(found):
    """Name -> work of the rows of real images."""
    return {name: work for name, work in found.shared.items() if name.startswith("baselines")}


# What two sets have in common, what the second has besides, and its rows of real images that the
# first has not.
SOFT = {"labels__relabel": "teacher"}
DIFFERENCES = [
    (SOFT, {"teacher__num_epochs": 7}, {"random_real_soft", "ii_random_real"}),
    ({}, {"teacher__num_epochs": 7}, {"ii_random_real"}),
    ({}, {"teacher__nets": ("mlp", "mlp")}, {"ii_random_real"}),
    ({}, SOFT, {"random_real_soft"}),
    ({}, {"labels__calibration": "adsa"}, {"ii_random_real"}),
    ({}, {"labels__views": 9}, set()),
    ({}, {"student__num_epochs": 7}, {"ii_random_real"}),
    ({}, {"distill__method": "dm"}, set()),
    ({}, {"distill__method": "idm"}, set()),
    ({}, {"distill__ipc": 2}, {"random_real", "ii_random_real"}),
    ({}, {"evaluation__curve": True}, set()),
    ({}, {"evaluation__extra_rows": ("8bit",)}, set()),
    ({}, {"evaluation__networks": "mlp"}, {"random_real@mlp"}),
    ({}, {"evaluation__full_num_epochs": 2}, {"full_real"}),
    ({}, {"evaluation__momentum": 0.7}, {"random_real", "full_real"}),
    ({}, {"evaluation__num_seeds": 3}, set(BOTH)),
]


@pytest.mark.parametrize(("common", "fields", "expected"), DIFFERENCES)
def test_sets_share_the_baselines_that_are_the_same(sets, tmp_path, common, fields, expected):
    one, other = (
        list_baselines(estimate(sets, tmp_path, **common, **more)) for more in ({}, fields)
    )
    alone = {name for name in other if name not in one}
    assert {name.removeprefix("baselines/").rpartition("-")[0] for name in alone} == expected
    assert all(one[name] == other[name] for name in one.keys() & other.keys())


def test_baselines_on_disk_are_known_by_the_names_of_their_files(sets, finished):
    """Breaks when a name stands for another row than the one that an evaluation writes."""
    config = tiny_config.get_config()
    found = cost.estimate_cost(config, sets, str(finished), "b")
    of_files = {f"baselines/{path.stem}" for path in (finished / "baselines").glob("*.json")}
    assert len(of_files) == 2 and of_files == set(list_baselines(found)) <= found.there
    config.evaluation.num_epochs += 1
    changed = cost.estimate_cost(config, sets, str(finished), "b")
    assert len(changed.there & of_files) == 1, "the whole training set has epochs of its own"
