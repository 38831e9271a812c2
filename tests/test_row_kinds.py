"""Breaks when a row is expected that a method or a block has not, or one is missed."""

import pytest

from ltdd_jax import config, row_kinds
from ltdd_jax.records import flatten

EVERY = set(config.ROWS)
AGAIN = "initial_at_baseline_rate"


def make_values(method="dam_ed", blocks=("i", "ii"), rows=config.ROWS, **fields):
    settings = config.base_config()
    config.use_preset(settings, method)
    settings.evaluation.blocks, settings.evaluation.rows = blocks, rows
    for field, value in fields.items():
        config.set_field(settings, field.replace("__", "."), value)
    return flatten(settings.to_dict())


@pytest.mark.parametrize(
    ("method", "fields", "first", "second"),
    [
        ("dam_ed", {}, EVERY, {"distilled", "initial", "random_real"}),
        ("herding", {}, EVERY - {"initial", AGAIN}, {"distilled", "random_real"}),
        ("rded", {}, EVERY - {"initial"}, {"distilled", "random_real"}),
        ("rded", {"labels__relabel": "teacher"}, EVERY, {"distilled", "random_real"}),
        ("rded", {"labels__calibration": "adsa"}, EVERY, {"distilled", "random_real"}),
        # Which leaves the labels of the method to block (i).
        ("rded", {"labels__relabel": "views"}, EVERY - {"initial"}, {"distilled", "random_real"}),
        ("rded", {"blocks": ("i",)}, EVERY - {"initial"}, set()),
        ("dam_ed", {"blocks": ("ii",), "rows": ("initial", AGAIN)}, set(), {"initial"}),
        ("dam_ed", {"rows": (AGAIN, "full_real")}, {AGAIN, "full_real"}, set()),
    ],
)
def test_kinds_are_those_that_are_asked_for_and_there(method, fields, first, second):
    values = make_values(method, **fields)
    assert row_kinds.list_kinds(values, "i") == first
    assert row_kinds.list_kinds(values, "ii") == second


@pytest.mark.parametrize(
    ("method", "rows", "first", "second"),
    [
        ("dam_ed", ("distilled",), False, True),
        ("dam_ed", ("initial",), False, True),
        ("dam_ed", (AGAIN,), True, False),
        ("dam_ed", ("random_real", "full_real"), False, False),
        ("herding", ("distilled",), True, True),
        ("herding", ("initial", AGAIN, "full_real"), False, False),
        ("rded", ("initial",), False, False),
    ],
)
def test_a_rate_of_real_images_is_needed_by_rows_that_take_it(method, rows, first, second):
    values = make_values(method, rows=rows)
    assert row_kinds.needs_rates(values, "i") == first
    assert row_kinds.needs_rates(values, "ii") == second


@pytest.mark.parametrize("block", ["i", "ii"])
@pytest.mark.parametrize("method", ["dam_ed", "herding", "rded"])
def test_there_is_a_reason_for_every_kind_that_a_block_has_not(method, block):
    lacking = row_kinds.explain_lacking(make_values(method), block)
    assert lacking.keys() == EVERY - row_kinds.list_kinds(make_values(method), block)
    assert all(lacking.values())
