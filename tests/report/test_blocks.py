"""Breaks when numbers of the two blocks of an evaluation get into one table."""

from ltdd_jax.report import blocks, page, text
from tests.report import made_up

OWN = {
    "labels": "S1", "images_stored": 20, "images_seen": 80, "student": "convnet", "seeds": 2,
    "stored_bytes": {"images": 1234, "labels": 56, "teacher": 0}, "augmentation": "DSA",
    "selection": "final iterate", "block": "i",
}  # fmt: skip
TAUGHT = OWN | {
    "block": "ii", "labels": "ST", "teacher": {"mean": 62.9, "balanced": 61.8, "nets": 2},
    "stored_bytes": {"images": 1234, "labels": 0, "teacher": 7890},
}  # fmt: skip


def make_report(*names):
    report = made_up.make_report(rows=names)
    for name, row in report["results"].items():
        row |= TAUGHT if name.startswith("ii_") else OWN
        row["title"] = f"title of {name}."
        if name.endswith("distilled"):
            row |= {"hlr": 40.0, "ior": 2.5, "lrs": 0.25}
    return report


BOTH = ("ii_random_real", "distilled", "random_real", "ii_distilled")


def test_each_block_has_its_own_tables():
    report = make_report(*BOTH)
    assert {block: list(rows) for block, rows in blocks.list_blocks(report).items()} == {
        "i": ["distilled", "random_real"],
        "ii": ["ii_random_real", "ii_distilled"],
    }
    made = text.render_markdown(report)
    tables = [part for part in made.split("\n\n") if part.startswith("| ")]
    for table in tables:
        mixed = "title of distilled." in table and "title of ii_distilled." in table
        assert not mixed, table
    assert (
        sum("title of ii_distilled." in table for table in tables) == 3
    )  # results, origin, classes
    assert made.index("## Block (i)") < made.index("## Block (ii)")
    assert "The teacher itself: 62.9 % (balanced 61.8 %), mean logits of 2 networks." in made
    assert "hard-label recovery 40.0 points below" in made and "+2.5 points" in made
    assert (
        "| title of ii_distilled. | ST: a teacher labels every view | 20 | 80 | 1,234 | 0 | 7,890 |"
        in made
    )


def test_one_block_alone():
    """Breaks when the usual report names blocks that it has not, or the second needs the first."""
    assert "Block (" not in text.render_markdown(make_report("distilled", "random_real"))
    alone = make_report("ii_random_real", "ii_distilled")
    made = text.render_markdown(alone)
    assert "## Block (ii)" in made and "Block (i):" not in made
    whole = page.render_page(alone, made_up.make_material(made_up.make_pictures()))
    assert 'id="taught"' in whole and 'id="results"' not in whole
    assert whole.count("title of ii_distilled.") > 2


def test_page_keeps_the_blocks_apart():
    whole = page.render_page(make_report(*BOTH), made_up.make_material(made_up.make_pictures()))
    first = whole[whole.index('id="results"') : whole.index('id="taught"')]
    second = whole[whole.index('id="taught"') : whole.index('id="classes"')]
    assert "title of ii_" not in first and "title of distilled." not in second
    assert "Not to be compared with the other block" in second
