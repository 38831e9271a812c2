"""Breaks when report.json loses a field or the page misplaces a number."""

import json

import pytest

from ltdd_jax import config as settings
from ltdd_jax.report import text

RESULTS = {
    "distilled": {
        "mean": 71.26, "std": 1.0, "per_seed": [70.3, 72.3], "per_class": [80.0, 62.5],
        "balanced": 71.2, "many": 80.0, "few": 62.5,
        "title": "distilled set (DAM + ED)", "rate": 0.01234, "tuning": {}, "updates": 1001,
    },
    "full_real": {
        "mean": 90.04, "std": 0.25, "per_seed": [89.8, 90.3], "per_class": [95.0, 85.0],
        "balanced": 90.0, "many": 95.0, "few": 85.0,
        "title": "whole training set", "rate": 0.05, "tuning": {"0.01": 88.25, "0.05": 89.5},
        "updates": 2002,
    },
}  # fmt: skip
CURVE = {
    f"iteration_{number:06d}": RESULTS["distilled"] | {"mean": mean, "title": "on the way"}
    for number, mean in ((500, 75.0), (1000, 74.0))
}
EXPERTS = {
    "representation": {"mean": 60.0, "balanced": 55.0, "many": 70.0, "few": 40.0, "num_epochs": 30},
    "classifier": {"mean": 58.0, "balanced": 57.0, "many": 65.0, "few": 48.0, "num_epochs": 5},
}


def make(results=RESULTS, **changes):
    arguments = dict(
        config=settings.base_config().to_dict(),
        config_hash="c" * 64,
        data_fingerprint="d" * 64,
        class_names=["cat|dog", "ship"],
        train_counts=[200, 10],
        versions={"jax": "0.10.2"},
        seconds={"experts": 12.3, "distill": 45},
    )
    return text.make_report(results, **(arguments | changes))


def test_report_holds_everything_and_fits_json():
    made = make()
    found = json.loads(text.render_json(made))
    for section in made["config"].values():  # JSON has no tuples
        if isinstance(section, dict):
            section |= {k: list(v) for k, v in section.items() if isinstance(v, tuple)}
    assert found == made
    assert list(made["results"]) == ["distilled", "full_real"]  # as they were given
    assert made["results"]["distilled"] == RESULTS["distilled"]
    assert made["seconds"] == {"experts": 12.3, "distill": 45.0}
    assert made["experts"] == {} and make(experts=EXPERTS)["experts"] == EXPERTS
    for name in ("config", "config_hash", "data_fingerprint", "versions", "train_counts"):
        assert made[name]


def test_json_has_sorted_keys_and_refuses_nan():
    page = text.render_json(make())
    keys = [line.split('"')[1] for line in page.splitlines() if line.startswith('  "')]
    assert keys == sorted(keys)
    with pytest.raises(ValueError, match="not JSON compliant"):
        text.render_json(make({"distilled": RESULTS["distilled"] | {"mean": float("nan")}}))


def test_page_has_one_row_per_training_set_and_dashes_for_absent_groups():
    lines = text.render_markdown(make()).splitlines()
    assert lines[0] == "# base"
    header = next(line for line in lines if line.startswith("| trained on"))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[1:3] == ["accuracy", "balanced"] and columns[-2:] == ["rate", "updates"]
    distilled = (
        "| distilled set (DAM + ED) | 71.3 ± 1.0 | 71.2 | 80.0 | – | 62.5 | 0.01234 | 1001 |"  # noqa: RUF001
    )
    assert distilled in lines
    full = "| whole training set | 90.0 ± 0.2 | 90.0 | 95.0 | – | 85.0 | 0.05 | 2002 |"  # noqa: RUF001
    assert full in lines
    assert not any("random" in line for line in lines)


@pytest.mark.parametrize(
    ("accuracies", "words"), [([71.0], "1 network;"), ([1.0] * 3, "3 networks;")]
)
def test_networks_are_counted(accuracies, words):
    """Breaks when one network is '1 networks'."""
    results = {"distilled": RESULTS["distilled"] | {"per_seed": accuracies}}
    assert f"over {words} groups" in text.render_markdown(make(results))


def test_page_tells_how_a_rate_was_chosen():
    page = text.render_markdown(make())
    assert "Rate of «whole training set»" in page and "held-out training images" in page
    assert "0.01: 88.2, 0.05: 89.5." in page
    assert "Rate of «distilled set" not in page


def test_page_has_the_experts_if_they_were_looked_at():
    header = "last snapshots, mean over experts"
    assert header not in text.render_markdown(make())
    page = text.render_markdown(make(experts=EXPERTS))
    assert header in page
    assert "| representation experts, epoch 30 | 60.0 | 55.0 | 70.0 | – | 40.0 |" in page  # noqa: RUF001
    assert "| classifier experts, epoch 5 | 58.0 | 57.0 | 65.0 | – | 48.0 |" in page  # noqa: RUF001


def test_experts_are_counted_where_there_are_any():
    """Breaks when a method that trains none is said to have some."""
    assert "; 100 experts, seed 0." in text.describe_settings(make(experts=EXPERTS))
    without = text.describe_settings(make())
    assert "experts" not in without and without.endswith("; seed 0.")


def test_curve_stands_apart_and_the_best_on_the_test_set_is_named_as_such():
    """Breaks when a point of the curve gets into the table, or the best is taken for the result."""
    made = make(RESULTS | CURVE)
    assert made["best_on_test"] == {"row": "iteration_000500", "mean": 75.0, "std": 1.0}
    page = text.render_markdown(made)
    assert "on the way" not in page
    assert "| 500 | 75.0 ± 1.0 |\n| 1000 | 74.0 ± 1.0 |" in page
    assert "Best on the test set" in page and "75.0 ± 1.0 (iteration_000500)" in page
    # The last set is a point of the curve too; real images are none.
    low = {name: row | {"mean": 10.0} for name, row in CURVE.items()}
    assert make(RESULTS | low)["best_on_test"]["row"] == "distilled"
    assert make()["best_on_test"] is None
    assert "Best on the test set" not in text.render_markdown(make())


def test_page_has_a_row_per_class_and_the_settings():
    page = text.render_markdown(make())
    assert "| cat\\|dog | 200 | 80.0 | 95.0 |" in page
    assert "| ship | 10 | 62.5 | 85.0 |" in page
    assert "Method dam_ed, 10 images per class from 210 images of digits" in page
    assert "experts 12 s, distill 45 s" in page
    assert "over 2 networks" in page


def test_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="counted differently"):
        make(class_names=["cat"])


def test_page_says_when_training_images_judged():
    """Breaks when a number from held-out training images can be taken for one of the test set."""
    sentence = "Judged on 1,234 held-out training images; the test set was not read."
    page = text.render_markdown(make(RESULTS | CURVE, held_out=1234))
    assert sentence in page and "Best on held-out training images" in page
    assert "on the test set, as" not in page
    assert "eld-out training images; the" not in text.render_markdown(make())
    assert (make(held_out=5)["held_out"], make()["held_out"]) == (5, 0)
