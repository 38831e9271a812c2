"""Which settings make an artefact what it is; what is left out shares it, what is in makes anew."""

import copy
import dataclasses
import functools
import operator
import types

import pytest

from ltdd_jax.pipeline import (
    artefacts,
    claims,
    distill,
    evaluate,
    experts,
    labels,
    rows,
    taught_rows,
)
from ltdd_jax.types import UserError
from tests.pipeline import small_run

ALL = "experts 1, experts 2, set, row, tuned row"
# Field, another value than that of the tiny config -> artefacts that must be made anew.
FIELDS = [
    ("seed", 1, ALL),
    ("data__imbalance_factor", 7.0, ALL),
    ("data__zca_eps", 0.2, ALL),
    ("data__path", "elsewhere", ""),
    ("data__judge", "held_out", ALL),
    ("data__judge_share", 0.3, ""),  # of no effect while the test set judges
    ("net__name", "mlp", ALL),
    ("net__width", 5, ALL),
    ("augment__strategy", "crop", ALL),
    ("runtime__precision", "bfloat16", ALL),
    ("runtime__log_steps", 9, ""),
    ("runtime__expert_group_size", 1, ""),
    ("experts__path", "elsewhere", ""),
    ("experts__num_experts", 3, "set"),
    ("experts__representation__rho", 0.07, "experts 1, experts 2, set"),
    ("experts__representation__num_epochs", 9, "experts 1, experts 2, set"),
    ("experts__classifier__learning_rate", 0.07, "experts 2, set"),
    ("distill__method", "dam", "set"),
    ("distill__ipc", 3, "set"),
    ("distill__keep_steps", 0, ""),
    ("trajectory__image_lr", 7.0, "set"),
    ("trajectory__classifier__loss_weight", 0.7, "set"),
    ("trajectory__num_shards", 2, "set"),
    ("selection__rule", "herding", ""),
    ("evaluation__num_seeds", 3, "row, tuned row"),
    ("evaluation__batch_size", 7, "row, tuned row"),
    ("evaluation__momentum", 0.7, "row, tuned row"),
    ("evaluation__weight_decay", 0.7, "row, tuned row"),
    ("evaluation__num_epochs", 7, "row, tuned row"),
    ("evaluation__baseline_rates", (0.03,), "tuned row"),
    ("evaluation__held_out", 0.3, "tuned row"),
    ("evaluation__tuning_epochs", 3, "tuned row"),
    ("evaluation__curve", True, ""),
    ("evaluation__keep_networks", True, ""),
]


def make_row(run, made_of="a set", name="distilled"):
    epochs = run.config.evaluation.num_epochs
    return rows.Row(name, "title", made_of, 6, epochs, load=None, per_network=True)


def identities(run):
    """Artefact -> what it belongs to."""
    method = types.SimpleNamespace(experts=experts.KINDS, teachers=())
    return {
        "experts 1": experts.identify(run, "representation"),
        "experts 2": experts.identify(run, "classifier"),
        "set": distill.identify(run, method),
        "row": evaluate.identify(run, make_row(run), 0.1),
        "tuned row": evaluate.identify(run, make_row(run), None),
    }


def differ(one, other):
    """Artefacts that two runs do not share, joined as in the table."""
    one, other = identities(one), identities(other)
    return ", ".join(name for name in one if one[name] != other[name])


# Field, another value, what is made anew: labels of the set, what teaches block (ii), its rows.
TAUGHT_FIELDS = [
    ("labels__relabel", "teacher", "labels"),
    ("labels__calibration", "adsa", "labels, teaching"),
    ("labels__views", 9, ""),
    ("teacher__num_epochs", 7, "teaching"),
    ("student__temperature", 2.0, "taught row, tuned taught row"),
    ("student__area", (0.5, 1.0), "taught row, tuned taught row"),
    ("student__learning_rates", (0.1, 0.2), "tuned taught row"),
    ("evaluation__num_seeds", 3, "taught row, tuned taught row"),
    ("evaluation__held_out", 0.3, "tuned taught row"),
    ("evaluation__momentum", 0.7, ""),
    ("evaluation__blocks", ("ii",), ""),
    ("evaluation__rows", ("random_real",), ""),
]


@pytest.mark.parametrize(
    ("field", "value", "anew"), TAUGHT_FIELDS, ids=[row[0] for row in TAUGHT_FIELDS]
)
def test_settings_that_make_labels_and_taught_rows(tmp_path, field, value, anew):
    """Breaks when other labels need another distillation, or a student's result is another's."""
    found = []
    for fields in ({}, {field: value}):
        run = small_run.make_run(tmp_path, **fields)
        row = dataclasses.replace(make_row(run), block="ii")
        found.append({
            "set": identities(run)["set"],
            "labels": labels.identify_source(run),
            "teaching": taught_rows.identify(run),
            "taught row": evaluate.identify(run, row, 0.1),
            "tuned taught row": evaluate.identify(run, row, None),
        })  # fmt: skip
    one, other = found
    assert ", ".join(name for name in one if one[name] != other[name]) == anew


@pytest.mark.parametrize(("field", "value", "anew"), FIELDS, ids=[row[0] for row in FIELDS])
def test_settings_that_make_an_artefact(tmp_path, field, value, anew):
    """Breaks when a result is taken for that of other settings, or made twice for the same."""
    before = small_run.make_run(tmp_path)
    assert differ(before, small_run.make_run(tmp_path, **{field: value})) == anew


def test_results_on_the_test_set_keep_their_identity(tmp_path):
    """Breaks when earlier directories are refused, or one share is taken for another."""
    found = {}
    for judge, share in (("test", 0.2), ("held_out", 0.2), ("held_out", 0.3)):
        run = small_run.make_run(tmp_path, data__judge=judge, data__judge_share=share)
        for name, identity in identities(run).items():
            found.setdefault(name, []).append(identity["data"])
    for of_test, one, other in found.values():
        assert not {"judge", "judge_share"} & of_test.keys()
        assert one == of_test | {"judge": "held_out", "judge_share": 0.2}
        assert other == of_test | {"judge": "held_out", "judge_share": 0.3}


def test_other_data_make_everything_anew(tmp_path):
    one, other = (small_run.make_run(tmp_path, fingerprint=text) for text in "fg")
    assert differ(one, other) == ALL


def test_selection_belongs_to_its_own_section(tmp_path):
    """And to no experts where it needs none."""
    method = types.SimpleNamespace(experts=(), teachers=())
    found = [
        distill.identify(small_run.make_run(tmp_path, distill__method="random", **fields), method)
        for fields in (
            {},
            {"trajectory__image_lr": 7.0, "experts__num_experts": 3},
            {"selection__budget": "proportional"},
        )
    ]
    assert found[0] == found[1] != found[2]


def test_result_of_a_row_belongs_to_its_set_rate_and_name(tmp_path):
    """Breaks when the result of another distilled set is taken for that of this one."""
    run = small_run.make_run(tmp_path)
    found = [
        evaluate.identify(run, make_row(run, **row), rate)
        for row, rate in (({}, 0.1), ({"made_of": "other"}, 0.1), ({"name": "x"}, 0.1), ({}, 0.2))
    ]
    assert all(found[i] != found[j] for i in range(4) for j in range(i))


def test_checksum_is_that_of_all_of_the_set(tmp_path):
    """Breaks when labels or step size may change unseen."""
    run = small_run.make_run(tmp_path)
    small_run.write_sets(run)
    found = artefacts.read_set(run, artefacts.FINAL)
    sums = {found.checksum()}
    for name in ("images", "label_logits", "step_size"):
        changed = found.synthetic.replace(**{name: getattr(found.synthetic, name) * 2})
        sums.add(artefacts.LabelledSet(changed, found.labels).checksum())
    assert len(sums) == 4


def test_place_of_a_set_is_not_given_away_once_there_is_one(tmp_path):
    """Breaks when a set of other settings would be overwritten."""
    run = small_run.make_run(tmp_path)
    claims.claim_set(run.workspace, {"image_lr": 1.0})
    claims.claim_set(run.workspace, {"image_lr": 2.0})  # nothing is there yet
    run.workspace.distill.mkdir()
    claims.claim_set(run.workspace, {"image_lr": 2.0})
    with pytest.raises(UserError, match=r"image_lr: 2\.0 -> 3\.0.*nothing is overwritten"):
        claims.claim_set(run.workspace, {"image_lr": 3.0})


@pytest.mark.parametrize(
    ("method_name", "section", "field", "was", "other"),
    [
        ("random", "selection", "embedding", "expert", "teacher"),
        ("dam_ed", "trajectory", "class_weight_scale", "frequency", "mean_one"),
        ("dam_ed", "trajectory", "scanned_experts", "first", "all"),
        ("dam_ed", "trajectory", "partition", 1, 2),
        ("dam_ed", "trajectory", "classifier__step_size_factor", 1.0, 2.0),
        ("dam_ed", "trajectory", "representation__step_size_factor", 1.0, 2.0),
    ],
)
def test_sets_made_before_there_was_a_field_are_found_again(
    tmp_path, method_name, section, field, was, other
):
    """Breaks when a directory is refused for a field that came later, or one is ignored."""
    run = small_run.make_run(tmp_path, distill__method=method_name)
    method = types.SimpleNamespace(experts=(), teachers=())
    now = distill.identify(run, method)
    before = copy.deepcopy(now[section])
    *inner, name = field.split("__")
    del functools.reduce(operator.getitem, inner, before)[name]
    claims.claim_set(run.workspace, now | {section: before})
    run.workspace.distill.mkdir()
    claims.claim_set(run.workspace, now)
    options = {"distill__method": method_name, f"{section}__{field}": other}
    changed = small_run.make_run(tmp_path, **options)
    path = ".".join((section, *inner, name))
    with pytest.raises(UserError, match=rf"{path}: {was!r} -> {other!r}"):
        claims.claim_set(changed.workspace, distill.identify(changed, method))


class Names:
    """Stands for trajectories: a snapshot carries its own name."""

    def __init__(self, kind):
        self._kind = kind

    def read(self, expert, epoch, like):
        return {part: {"kernel": (self._kind, expert, epoch)} for part in like}


def test_classifier_expert_sits_on_the_last_backbone_of_its_own_expert(tmp_path, monkeypatch):
    """Breaks when the backbone is that of another expert or epoch."""
    init = lambda key: {part: {"kernel": key} for part in ("conv", "classifier")}  # noqa: E731
    network = types.SimpleNamespace(init=init)
    snapshots = experts.Snapshots(small_run.make_run(tmp_path, network))
    monkeypatch.setattr(snapshots, "_open", Names)
    assert snapshots.read("classifier", 1, 2) == {
        "conv": {"kernel": ("representation", 1, -1)},
        "classifier": {"kernel": ("classifier", 1, 2)},
    }
    whole = {"kernel": ("representation", 1, 3)}
    assert snapshots.read("representation", 1, 3) == {"conv": whole, "classifier": whole}
