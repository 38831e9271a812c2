"""Breaks when a default, a range or a command-line message goes wrong."""

import importlib.util
import json
import math
import pathlib

import ml_collections
import pytest

from ltdd_jax import config as settings
from ltdd_jax import families, fields, nets, presets, records
from ltdd_jax.data import augment
from ltdd_jax.distill import selection, student, trajectory
from ltdd_jax.nets import convolution
from ltdd_jax.types import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
CIFAR10_CELLS = [f"if{f}_ipc{i}" for f in (10, 50, 100, 200) for i in (10, 20, 50)]
CIFAR100_CELLS = [f"if{f}_ipc{i}" for f in (10, 20) for i in (10, 20, 50)]
CELLS = {
    "digits_lt": ["full", "smoke"],
    "cifar10_lt": CIFAR10_CELLS,
    "cifar100_lt": CIFAR100_CELLS,
}


def load(name: str, argument: str = "") -> ml_collections.ConfigDict:
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def edit(**fields) -> ml_collections.ConfigDict:
    """The base config with fields replaced; "__" stands for the dot."""
    config = settings.base_config()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def test_base_config_is_valid_and_is_the_table():
    """Breaks when a default is not allowed itself, or a field says nothing of what it means."""
    config, table = settings.base_config(), fields.flatten_fields()
    settings.validate(config)
    assert records.flatten(config.to_dict()) == {name: f.default for name, f in table.items()}
    for name, field in table.items():
        assert field.rule.is_allowed(field.default), name
        assert field.text.endswith(".") and len(field.text) > 10, name
        assert field.rule.text or field.rule.is_allowed("anything"), name


def test_base_config_is_locked():
    with pytest.raises(AttributeError, match="ipx"):
        settings.base_config().distill.ipx = 3


def test_names_equal_the_registries():
    # The table may not import these modules, so it repeats their names.
    choices = {name: field.rule.choices for name, field in fields.flatten_fields().items()}
    assert set(nets.REGISTRY) == set(fields.NETS)
    assert fields.AUGMENTATIONS == augment.OPS
    assert ("auto", *convolution.FORMS) == fields.CONVOLUTIONS
    assert choices["selection.rule"] == selection.RULES
    assert set(choices["trajectory.gradient"]) == set(student.GRADIENTS)
    assert set(choices["trajectory.label_experts"]) == set(trajectory.PHASES)
    assert choices["distill.method"] == tuple(settings.METHODS) == tuple(presets.PRESETS)
    assert settings.base_config().distill.method == settings.DEFAULT_METHOD


def test_every_preset_is_of_a_family_and_sets_fields_that_exist():
    """Breaks when a preset writes a field that is gone, or one that belongs to another family."""
    table = fields.flatten_fields()
    assert {preset.section for preset in presets.PRESETS.values()} == set(families.BUILDERS)
    for name, preset in presets.PRESETS.items():
        for values in (preset.settings, *preset.published.values()):
            assert values.keys() <= table.keys(), name
            others = families.BUILDERS.keys() - {preset.section}
            assert not [x for x in values if x.partition(".")[0] in others], name


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "a/b", "file name"),
        ("seed", -1, "from 0 to"),
        ("data.source", "cifar11", r"did you mean cifar10\?"),
        ("data.source", "tfds:", "tfds:NAME"),
        ("data.subset", "balanced", "long_tail, as_is"),
        ("data.imbalance_factor", 0.99, "at least 1"),
        ("data.imbalance_factor", math.inf, "finite"),
        ("data.zca_eps", 0.0, "above 0"),
        ("data.image_size", 2, "0 or 4 to 1024"),
        ("net.name", "convnets", r"did you mean convnet\?"),
        ("net.depth", 9, "from 1 to 8"),
        ("augment.strategy", "color_blur", "crop"),
        ("experts.num_experts", 0, "at least 1"),
        ("experts.classifier.learning_rate", math.nan, "above 0"),
        ("experts.representation.momentum", 1.0, "below 1"),
        ("distill.ipc", 0, "at least 1"),
        ("trajectory.gradient", "approximate", "two_pass"),
        ("trajectory.image_lr", -1.0, "at least 0"),
        ("trajectory.initial_step_size", math.nan, "above 0"),
        ("trajectory.classifier.student_steps", 0, "at least 1"),
        ("evaluation.num_seeds", 0, "at least 1"),
        ("evaluation.baseline_rates", (), "one or more numbers above 0"),
        ("evaluation.baseline_rates", ("fast",), "one or more numbers above 0"),
        ("evaluation.baseline_rates", (0.1, True), "one or more numbers above 0"),
        ("evaluation.baseline_rates", (0.1, -0.1), "one or more numbers above 0"),
        ("evaluation.baseline_rates", (0.1, math.nan), "one or more numbers above 0"),
        ("evaluation.held_out", 0.6, "at most 0.5"),
        ("data.judge", "heldout", r"did you mean held_out\?"),
        ("data.judge_share", 0.0, "above 0"),
        ("distill.method", "datn", r"did you mean datm\?"),
        ("selection.rule", "herd", r"did you mean herding\?"),
        ("trajectory.num_shards", 0, "at least 1"),
        ("runtime.precision", "float64", "bfloat16"),
        ("runtime.checkpoint_minutes", math.nan, "at least 0"),
    ],
)
def test_impossible_value_is_refused_with_field_value_and_range(field, value, expected):
    with pytest.raises(UserError, match=expected) as caught:
        settings.validate(edit(**{field.replace(".", "__"): value}))
    assert str(caught.value).startswith(f"--config.{field}={value}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"trajectory__representation__min_start_epoch": 20}, "leaves no start epoch"),
        (
            {
                "trajectory__representation__sequential": True,
                "trajectory__representation__current_start_epoch": 21,
            },
            "from 0 to 20",
        ),
        ({"experts__representation__num_epochs": 20}, "num_epochs to at least 21"),
        ({"experts__classifier__num_epochs": 1}, "experts.classifier.num_epochs to at least 2"),
        ({"data__source": "folder"}, "data.path is empty"),
        ({"data__path": "here"}, "data.path=here is not read"),
        ({"data__mismatched_test": True, "data__normalize": True}, "normalize=false"),
        (
            {
                "trajectory__representation__loss_weight": 0.0,
                "trajectory__classifier__loss_weight": 0.0,
            },
            "nothing is matched",
        ),
        ({"trajectory__classifier__matched": "all"}, "it must be classifier"),
        ({"trajectory__labels": "target"}, "as the preset tesla has them"),
        *(
            ({"evaluation__blocks": ("ii",), f"evaluation__{name}": value}, "block i")
            for name, value in (("networks", "mlp"), ("protocols", "sgd,adam"))
        ),
        (
            {"evaluation__blocks": ("ii",), "evaluation__rows": ("full_real",)},
            "leaves nothing to evaluate, since the whole training set is a row of block i alone",
        ),
        (
            {
                "distill__method": "random",
                "evaluation__rows": ("initial", "initial_at_baseline_rate"),
            },
            "since a selection begins as what it is: add 'distilled' or 'random_real'",
        ),
        (
            {"distill__method": "rded", "evaluation__rows": ("initial",)},
            "since confident crops stay what they begin as: add 'distilled'",
        ),
        (
            {
                "evaluation__blocks": ("ii",),
                "evaluation__rows": ("initial_at_baseline_rate", "full_real"),
            },
            "block ii has one rate for all rows and the whole training set is a row of block i",
        ),
        (
            {"evaluation__networks": "mlp", "evaluation__rows": ("full_real", "initial")},
            "networks asks for further trainings .* leaves out",
        ),
    ],
)
def test_impossible_combination_is_refused(fields, expected):
    with pytest.raises(UserError, match=expected):
        settings.validate(edit(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"experts__representation__num_epochs": 21},  # last start 19, target 21
        {"trajectory__representation__loss_weight": 0.0},
        {"data__source": "folder", "data__path": "here", "data__imbalance_factor": 1.0},
        {"data__source": "tfds:svhn_cropped/3.1.0"},
        {"augment__strategy": ""},
        {"experts__representation__rho": 0.0},
        {"runtime__expert_group_size": 0},
        {"evaluation__baseline_rates": (1, 0.1)},  # as one writes it on the command line
    ],
)
def test_values_at_the_edge_are_allowed(fields):
    settings.validate(edit(**fields))


def test_missing_unknown_and_mistyped_fields_are_refused():
    whole = settings.base_config().to_dict()

    def check(config):
        settings.validate(ml_collections.ConfigDict(config))

    with pytest.raises(UserError, match=r"--config\.distill\.ipc is missing"):
        check({**whole, "distill": {k: v for k, v in whole["distill"].items() if k != "ipc"}})
    with pytest.raises(UserError, match=r"--config\.ipc is not a field"):
        check({**whole, "ipc": 1})
    with pytest.raises(UserError, match=r"--config\.seed=None has the wrong type.*whole number"):
        check({**whole, "seed": None})
    with pytest.raises(UserError, match=r"--config\.seed=True has the wrong type"):
        check({**whole, "seed": True})


def test_fields_of_a_family_that_is_not_chosen_are_not_combined():
    """Breaks when a selection is refused for the start epochs of a method it does not run."""
    impossible = {"trajectory__representation__min_start_epoch": 20}
    settings.validate(edit(distill__method="herding", **impossible))
    with pytest.raises(UserError, match="leaves no start epoch"):
        settings.validate(edit(**impossible))


def test_identity_leaves_out_locations():
    same = edit(data__data_dir="/d", data__path="/p", experts__path="/e")
    sections = ("data", "experts")
    assert settings.identity(same, sections) == settings.identity(settings.base_config(), sections)
    assert settings.identity(edit(data__whiten="off"), sections) != settings.identity(
        settings.base_config(), sections
    )


def test_identity_does_not_depend_on_what_may_be_read():
    """Breaks when a raised limit makes a directory that of other data, which it is not."""
    plain = settings.identity(settings.base_config(), ("data",))
    limits = {"data__max_total_gb": 128, "data__max_file_mb": 200, "data__follow_links": True}
    assert settings.identity(edit(**limits), ("data",)) == plain
    assert plain["data"]["max_total_gb"] == 64  # as in the identities of runs before


def test_identity_takes_dotted_sections_and_fits_json():
    config = edit(data__path="/d")
    part = settings.identity(config, ("seed", "data", "experts.representation"))
    assert part.keys() == {"seed", "data", "experts"}
    assert part["experts"].keys() == {"representation"}
    assert "path" not in part["data"] and part["data"]["source"] == "digits"
    # "experts.representation" is a section, not a prefix of names.
    assert settings.identity(config, ("s", "dat")) == {}
    assert json.loads(json.dumps(part)) == part
    rates = settings.identity(config, ["evaluation.baseline_rates"])
    assert json.loads(json.dumps(rates)) == rates  # a tuple of the config


def test_identity_hash_does_not_depend_on_the_order_of_fields():
    found = settings.identity(settings.base_config(), ["data", "net"])
    reordered = dict(reversed(found.items()))
    assert settings.identity_hash(reordered) == settings.identity_hash(found)
    assert settings.identity_hash(found | {"seed": 1}) != settings.identity_hash(found)
    assert len(settings.identity_hash(found)) == 64


def test_differences_name_the_fields():
    sections = ("seed", "data", "experts")
    before = settings.identity(settings.base_config(), sections)
    changed = edit(experts__representation__rho=0.02, data__source="cifar10")
    after = settings.identity(changed, sections)
    del after["seed"]
    assert records.differences(before, before) == []
    assert records.differences(before, after) == [
        "data.source: 'digits' -> 'cifar10'",
        "experts.representation.rho: 0.01 -> 0.02",
        "seed: 0 -> absent",
    ]


@pytest.mark.parametrize(
    ("name", "argument"),
    [("digits_lt", ""), ("digits_lt", "smoke")]
    + [("cifar10_lt", cell) for cell in ["", *CIFAR10_CELLS, "exact,if10_ipc10"]]
    + [("cifar100_lt", cell) for cell in ["", *CIFAR100_CELLS, "if20_ipc50,exact"]],
)
def test_config_files_are_valid(name, argument):
    config = load(name, argument)
    settings.validate(config)
    assert config.name.startswith(name)


@pytest.mark.parametrize("method", settings.METHODS)
def test_every_method_fits_every_config_file(method):
    """Breaks when a preset and the numbers of a cell make an impossible config."""
    for name, cells in CELLS.items():
        for cell in cells:
            config = load(name, f"{cell},{method}")
            settings.validate(config)
            assert config.distill.method == method and config.name.endswith(f"_{method}")


@pytest.mark.parametrize(
    ("modifier", "change"),
    [
        ("exact", "trajectory.gradient: 'two_pass' -> 'exact'"),
        ("as_published", "trajectory.num_shards: 1 -> 4"),
    ],
)
def test_modifier_changes_one_field_and_the_name_only(modifier, change):
    paper, other = (load("cifar10_lt", f"if100_ipc10{x}") for x in ("", f",{modifier}"))
    name = f"cifar10_lt_if100_ipc10_{modifier}"
    assert records.differences(paper.to_dict(), other.to_dict()) == [
        f"name: 'cifar10_lt_if100_ipc10' -> '{name}'",
        change,
    ]


def test_default_method_named_or_not_is_the_same():
    plain, named = load("cifar10_lt", ""), load("cifar10_lt", "dam_ed")
    assert records.differences(plain.to_dict(), named.to_dict()) == [
        "name: 'cifar10_lt_if100_ipc10' -> 'cifar10_lt_if100_ipc10_dam_ed'"
    ]


def test_parse_argument_refuses_unknown_words_and_two_of_a_kind():
    parse = settings.parse_argument
    assert parse("", ["a", "b"], ["m"], ["c"]) == ("a", "", frozenset())
    assert parse("c, m,b", ["a", "b"], ["m"], ["c"]) == ("b", "m", {"c"})
    with pytest.raises(UserError, match=r"'smokey' \(did you mean smoke\?\).*full, smoke"):
        parse("smokey", ["full", "smoke"])
    with pytest.raises(UserError, match=r"'detm' \(did you mean datm\?\).*optionally datm, exact"):
        parse("detm", ["full"], ["datm"], ["exact"])
    with pytest.raises(UserError, match="one variant, not a and b"):
        parse("a,b", ["a", "b"])
    with pytest.raises(UserError, match="one method, not m and n"):
        parse("m,n", ["a"], ["m", "n"])


def test_config_files_import_only_the_config_module():
    # So that they load from any directory.
    for path in (ROOT / "configs").glob("*.py"):
        lines = path.read_text().splitlines()
        imports = [line.split()[1] for line in lines if line.startswith(("import ", "from "))]
        assert set(imports) <= {"ltdd_jax.config", "ml_collections"}, path
