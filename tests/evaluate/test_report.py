"""Breaks when report.json loses a field or the page misplaces a number."""

import json

import pytest

from ltdd_jax import config as settings
from ltdd_jax.evaluate import report

RESULTS = {
    "full_real": {
        "mean": 90.04, "std": 0.25, "per_seed": [89.8, 90.3], "per_class": [95.0, 85.0],
        "balanced": 90.0, "many": 95.0, "few": 85.0,
    },
    "distilled": {
        "mean": 71.26, "std": 1.0, "per_seed": [70.3, 72.3], "per_class": [80.0, 62.5],
        "balanced": 71.2, "many": 80.0, "few": 62.5,
    },
}  # fmt: skip


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
    return report.make_report(results, **(arguments | changes))


def test_report_holds_everything_and_fits_json():
    made = make()
    assert json.loads(report.render_json(made)) == made
    assert list(made["results"]) == ["distilled", "full_real"]
    assert made["results"]["distilled"] == RESULTS["distilled"]
    assert made["seconds"] == {"experts": 12.3, "distill": 45.0}
    for name in ("config", "config_hash", "data_fingerprint", "versions", "train_counts"):
        assert made[name]


def test_json_has_sorted_keys_and_refuses_nan():
    text = report.render_json(make())
    keys = [line.split('"')[1] for line in text.splitlines() if line.startswith('  "')]
    assert keys == sorted(keys)
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.render_json(make({"distilled": RESULTS["distilled"] | {"mean": float("nan")}}))


def test_page_has_one_row_per_training_set_and_dashes_for_absent_groups():
    lines = report.render_markdown(make()).splitlines()
    assert lines[0] == "# base"
    header = next(line for line in lines if line.startswith("| trained on"))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[1:3] == ["accuracy", "balanced"] and len(columns) == 6
    assert "| distilled set | 71.3 ± 1.0 | 71.2 | 80.0 | – | 62.5 |" in lines  # noqa: RUF001
    assert "| whole training set | 90.0 ± 0.2 | 90.0 | 95.0 | – | 85.0 |" in lines  # noqa: RUF001
    assert not any("random" in line for line in lines)


def test_page_has_a_row_per_class_and_the_settings():
    text = report.render_markdown(make())
    assert "| cat\\|dog | 200 | 80.0 | 95.0 |" in text
    assert "| ship | 10 | 62.5 | 85.0 |" in text
    assert "20 synthetic images (10 per class) from 210 images of digits" in text
    assert "experts 12 s, distill 45 s" in text
    assert "over 2 networks" in text


def test_unknown_training_set_and_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="random_fake"):
        make({"random_fake": RESULTS["distilled"]})
    with pytest.raises(ValueError, match="counted differently"):
        make(class_names=["cat"])
