"""Breaks when cells share a directory they must not share, or a wrong table starts to run."""

import pathlib

import pytest

from ltdd_jax import config as configs
from ltdd_jax.errors import UserError
from ltdd_jax.table import Cell, Table
from ltdd_jax.table.cells import load_table, make_jobs, parse_value
from tests.table import made_up

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make(*cells, **more):
    return make_jobs(Table("t", cells, "t"), pathlib.Path(), **more)


def test_cells_of_one_data_set_share_a_directory_and_others_do_not():
    cell = Cell("digits_lt", "datm")
    same = make(cell, Cell("digits_lt", "mtt", overrides={"net.width": 8, "distill.ipc": 3}))
    assert same[0].directory == same[1].directory
    assert same[0].directory.startswith("digits-if20-seed0-")
    for field, value in (("seed", 1), ("data.imbalance_factor", 50.0), ("data.whiten", "off")):
        other = make(Cell("digits_lt", "datm", overrides={field: value}))
        assert other[0].directory != same[0].directory, field
    moved = make(cell, overrides={"data.data_dir": "elsewhere"})
    assert moved[0].directory == same[0].directory
    assert moved[0].identity == same[0].identity


def test_cells_of_one_table_are_judged_alike():
    """Breaks when numbers of the test set stand beside some of held-out training images."""
    held, test = ({"data.judge": judge} for judge in ("held_out", "test"))
    one, other = Cell("digits_lt", "datm", overrides=held), Cell("digits_lt", "mtt", overrides=test)
    with pytest.raises(UserError, match=r"mtt is judged on the test set and cell digits_lt-datm"):
        make(one, other)
    assert len(make(one, other, overrides={"data.judge": "held_out"})) == 2


def test_every_setting_that_a_result_depends_on_belongs_to_the_identity():
    (one,) = make(Cell("digits_lt", "datm"))
    assert make(Cell("digits_lt", "datm"))[0].identity == one.identity
    assert make(Cell("digits_lt", "datm"), overrides={"runtime.log_steps": "7"})[0].identity == (
        one.identity
    )
    for text in ("evaluation.num_seeds=3", "trajectory.label_lr=1.5", "runtime.precision=tf32"):
        field, value = text.split("=")
        assert make(Cell("digits_lt", "datm"), overrides={field: value})[0].identity != one.identity


@pytest.mark.parametrize("field", ["data.path", "data.train_list"])
def test_other_pictures_are_another_result_in_the_same_directory(field):
    """Breaks when the table of other pictures is finished with the numbers of the first ones."""
    cell = Cell("imagenet_lt", "datm", argument="official_ipc10")
    one, other = (make(cell, overrides={field: place})[0] for place in ("here", "there"))
    assert one.identity != other.identity
    assert one.directory == other.directory  # whose record says whether they are the same pictures


@pytest.mark.parametrize("field", ["data.path", "data.train_list"])
def test_other_pictures_in_one_table_have_a_directory_of_their_own(field):
    """Breaks when the second set of pictures is refused where the first one's results lie."""
    cells = [
        Cell("imagenet_lt", "datm", argument="official_ipc10", overrides={field: place}, name=name)
        for name, place in (("a", "here"), ("b", "there"), ("c", "here"))
    ]
    a, b, c = make(*cells)
    assert a.directory == c.directory == make(cells[0])[0].directory
    assert b.directory.startswith(a.directory + "-")


def test_the_command_line_overrides_the_table_which_overrides_the_config():
    cell = Cell("digits_lt", "datm", overrides={"net.width": 8, "distill.ipc": 3})
    (job,) = make(cell, overrides={"net.width": "12"})
    assert (job.config.net.width, job.config.distill.ipc) == (12, 3)
    assert (job.base.net.width, job.base.distill.ipc) == (32, 2)
    assert job.name == "digits_lt-datm"


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("net.width", "16", 16), ("net.name", "mlp", "mlp"), ("data.normalize", "True", True),
        ("evaluation.baseline_rates", "0.1,0.2", (0.1, 0.2)),
        ("evaluation.baseline_rates", "(0.1,)", (0.1,)),
        ("evaluation.baseline_rates", "0.1", (0.1,)), ("trajectory.label_lr", "2e-3", 2e-3),
    ],
)  # fmt: skip
def test_values_are_read_as_the_main_program_reads_them(field, text, value):
    found = parse_value(field, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([Cell("digits_lt", "datm"), Cell("digits_lt", "datm")], "two cells"),
        ([Cell("digits_lt", "datm", name="a/b")], "cannot name a cell"),
        ([Cell("digits_lt", "datm", name="名" * 67)], "cannot name a cell"),
        ([Cell("digits_tl", "datm")], "did you mean digits_lt"),
        ([Cell("nowhere.py", "datm")], "no file nowhere.py"),
        ([Cell("digits_lt", "datn")], "did you mean datm"),
        ([Cell("digits_lt", "datm", overrides={"net.widht": 3})], "did you mean net.width"),
        ([Cell("digits_lt", "datm", overrides={"net.width": "x"})], "net.width"),
        ([Cell("digits_lt", "datm", overrides={"net.width": 0})], "net.width=0"),
        ([Cell("digits_lt", "")], "and not"),
    ],
)
def test_a_wrong_cell_is_named_before_anything_runs(cells, words):
    with pytest.raises(UserError, match=words) as caught:
        make(*cells)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no function get_table"),
        ("1 / 0", "ZeroDivisionError"),
        ("def get_table(argument): return 3", "no Table"),
        ("def get_table(argument): return {}['a']", "KeyError"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "table.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_table(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("(Cell('digits_lt', 'dm'))", "must be a tuple of Cells"),
        ("('digits_lt',)", "must be a tuple of Cells"),
        ("(Cell('digits_lt', 'dm', notes=('ours')),)", "notes of cell 1 must be a tuple of texts"),
        ("(Cell('digits_lt', 'dm', overrides=[1]),)", "overrides of cell 1 must be a dict"),
        ("(Cell('digits_lt', 'dm', name=5),)", "name of cell 1 must be a text, not 5"),
    ],
)
def test_a_table_of_other_types_is_one_sentence(tmp_path, cells, words):
    """Breaks when a forgotten comma is a traceback, or makes a note of every letter."""
    text = "from ltdd_jax.table import Cell, Table\n"
    (tmp_path / "t.py").write_text(f"{text}get_table = lambda _: Table('t', {cells}, 'n')\n")
    with pytest.raises(UserError, match=words):
        load_table(str(tmp_path / "t.py"))


def test_a_file_that_a_table_misses_is_named(tmp_path):
    """Breaks when the table itself, which is there, is said to be missing."""
    (tmp_path / "t.py").write_text("open('numbers.csv')")
    with pytest.raises(UserError, match=r"t\.py: FileNotFoundError: .*'numbers\.csv'"):
        load_table(str(tmp_path / "t.py"))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no file"):
        load_table(str(tmp_path / "none.py"))


def test_paths_of_configs_are_relative_to_the_table(tmp_path):
    config = (ROOT / "configs" / "digits_lt.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(config, encoding="utf-8")
    (tmp_path / "table.py").write_text(
        "from ltdd_jax.table import Cell, Table\n"
        "def get_table(argument):\n"
        "    return Table('t', (Cell('mine.py', 'mtt', argument=argument),), 't')\n"
    )
    table, home = load_table(f"{tmp_path / 'table.py'}:smoke")
    (job,) = make_jobs(table, home)
    assert (job.name, job.config.distill.method) == ("mine-smoke-mtt", "mtt")


_TABLES = sorted(path.stem for path in (ROOT / "configs" / "tables").glob("*.py"))
_VARIANTS = [f"{name}:" for name in _TABLES] + ["digits:ci", "cifar10_small:if10_ipc10"]


@pytest.mark.parametrize("argument", _VARIANTS)
def test_packaged_tables_have_all_methods_and_can_be(argument):
    """Breaks when a method is registered that a table cannot run."""
    table, home = load_table(argument)
    jobs = make_jobs(table, home)
    assert {job.cell.method for job in jobs} == set(configs.METHODS)
    assert len({job.directory for job in jobs}) == 1


def test_made_up_cells_are_what_their_tests_take_them_for():
    (job,) = made_up.make_all("datm", overrides=made_up.NARROW)
    assert (job.config.net.width, job.base.net.width) == (64, 128)
