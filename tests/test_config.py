"""Breaks when a default, a range or a command-line message goes wrong."""

import importlib.util
import json
import math
import pathlib

import ml_collections
import pytest

from ltdd_jax import config as settings
from ltdd_jax import nets, records, validation
from ltdd_jax.data import augment
from ltdd_jax.nets import convolution
from ltdd_jax.types import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
CIFAR10_CELLS = [f"if{f}_ipc{i}" for f in (10, 50, 100, 200) for i in (10, 20, 50)]
CIFAR100_CELLS = [f"if{f}_ipc{i}" for f in (10, 20) for i in (10, 20, 50)]


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


def test_base_config_is_valid_and_every_field_has_a_rule():
    config = settings.base_config()
    settings.validate(config)
    assert records.flatten(validation._RULES).keys() == records.flatten(config.to_dict()).keys()


def test_base_config_is_locked():
    with pytest.raises(AttributeError, match="ipx"):
        settings.base_config().distill.ipx = 3


def test_names_equal_the_registries():
    # config may not import these modules, so it repeats their names.
    assert set(nets.REGISTRY) == set(validation.NETS)
    assert validation.AUGMENTATIONS == augment.OPS
    assert ("auto", *convolution.FORMS) == validation.CONVOLUTIONS


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


def test_identity_leaves_out_locations_and_runtime_but_keeps_precision():
    config = settings.base_config()
    same = edit(
        name="other", data__data_dir="/d", experts__path="/e", runtime__log_steps=1,
        runtime__convolution="lax",
    )  # fmt: skip
    assert settings.config_hash(same) == settings.config_hash(config)
    for fields in (
        {"runtime__precision": "tf32"}, {"seed": 1}, {"trajectory__classifier__loss_weight": 0.3},
    ):  # fmt: skip
        assert settings.config_hash(edit(**fields)) != settings.config_hash(config)


def test_identity_takes_dotted_sections_and_fits_json():
    config = edit(data__path="/d")
    part = settings.identity(config, ("seed", "data", "experts.representation"))
    assert part.keys() == {"seed", "data", "experts"}
    assert part["experts"].keys() == {"representation"}
    assert "path" not in part["data"] and part["data"]["source"] == "digits"
    # "experts.representation" is a section, not a prefix of names.
    assert settings.identity(config, ("s", "dat")) == {}
    assert json.loads(json.dumps(part)) == part


def test_config_hash_does_not_depend_on_the_order_of_fields():
    config = settings.base_config()
    reordered = ml_collections.ConfigDict(dict(reversed(config.to_dict().items())))
    assert settings.config_hash(reordered) == settings.config_hash(config)
    assert len(settings.config_hash(config)) == 64


def test_differences_name_the_fields():
    before = settings.identity(settings.base_config())
    after = settings.identity(edit(experts__representation__rho=0.02, data__source="cifar10"))
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


def test_exact_modifier_changes_the_gradient_and_the_name_only():
    paper, exact = load("cifar10_lt", "if100_ipc10"), load("cifar10_lt", "if100_ipc10,exact")
    assert records.differences(settings.identity(paper), settings.identity(exact)) == [
        "trajectory.gradient: 'two_pass' -> 'exact'"
    ]
    assert exact.name == "cifar10_lt_if100_ipc10_exact"


def test_parse_argument_refuses_unknown_words_and_two_variants():
    assert settings.parse_argument("", ["a", "b"], ["c"]) == ("a", frozenset())
    assert settings.parse_argument("c, b", ["a", "b"], ["c"]) == ("b", {"c"})
    with pytest.raises(UserError, match=r"'smokey' \(did you mean smoke\?\).*full, smoke"):
        settings.parse_argument("smokey", ["full", "smoke"])
    with pytest.raises(UserError, match="not a and b"):
        settings.parse_argument("a,b", ["a", "b"])


def test_config_files_import_only_the_config_module():
    # So that they load from any directory.
    for path in (ROOT / "configs").glob("*.py"):
        lines = path.read_text().splitlines()
        imports = [line.split()[1] for line in lines if line.startswith(("import ", "from "))]
        assert set(imports) <= {"ltdd_jax.config", "ml_collections"}, path
