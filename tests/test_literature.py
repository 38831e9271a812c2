"""The table of printed numbers: counted and added up from the papers' tables by another reader."""

import importlib.util
import pathlib

import pytest

from ltdd_jax import config as configs
from ltdd_jax import literature
from ltdd_jax.types import UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
FILES = ("cifar10", "cifar100", "tiny_imagenet", "imagenet")


def load(data):
    spec = importlib.util.spec_from_file_location(data, CONFIGS / f"{data}_lt.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


@pytest.mark.parametrize(
    ("data", "count", "mean_sum", "std_sum"),
    [
        ("cifar10", 117, 28456720.0, 405750.0),
        ("cifar100", 78, 3151550.0, 51870.0),
        ("tiny_imagenet", 28, 1678610.0, 30830.0),
        ("imagenet", 22, 48297.5, 865.0),
    ],
)
def test_numbers_with_a_spread_add_up(data, count, mean_sum, std_sum):
    """With a weight for each column: breaks when a digit of a table changes, when two numbers of a
    row are swapped, or when a number is lost or stands twice.
    """

    def weight(row):
        return row.imbalance_factor * (row.imbalance_factor + row.ipc)

    rows = [row for row in literature.PUBLISHED if row.data == data and row.std is not None]
    assert len(rows) == count
    assert sum(weight(row) * row.mean for row in rows) == pytest.approx(mean_sum, abs=0.1)
    assert sum(weight(row) * row.std for row in rows) == pytest.approx(std_sum, abs=0.1)


@pytest.mark.parametrize(
    ("cell", "mean", "std", "paper"),
    [
        (("cifar10", 100, 10, "dam_ed"), 53.4, 0.1, "2408.14506"),
        (("cifar10", 50, 50, "rded"), 53.2, 0.3, "2511.18858"),
        (("cifar10", 200, 50, "datm"), 40.1, None, "2408.14506"),
        (("cifar10", 100, 50, "dam"), 57.1, None, "2408.14506"),
        (("cifar10", 100, 10, "dam_ed", "resnet18"), 43.6, None, "2408.14506"),
        (("cifar10", 100, 10, "rldd", "vgg11"), 64.6, None, "2511.18858"),
        (("cifar10", 100, 1, "rldd"), 44.8, None, "2511.18858"),
        (("cifar100", 50, 10, "edc"), 30.2, 0.2, "2511.18858"),
        (("tiny_imagenet", 100, 20, "mtt"), 7.7, 0.3, "2408.14506"),
        (("imagenet", 10, 10, "tesla"), 2.7, 0.1, "2408.14506"),
    ],
)
def test_a_number_stands_in_its_cell(cell, mean, std, paper):
    """Breaks when columns are named in another order, which leaves every sum as it is."""
    found = literature.find(*cell)
    assert (found.mean, found.std) == (mean, std)
    assert paper in found.source


def test_no_number_is_made_up():
    """Breaks when a dash counts as a number, or two rows claim one cell of one paper."""
    assert literature.find("cifar100", 50, 20, "edc") is None
    assert literature.find("fashion_mnist", 100, 10, "random") is None
    rows = [(p.data, p.imbalance_factor, p.ipc, p.method, p.student) for p in literature.PUBLISHED]
    assert len(set(rows)) == len(rows)
    assert all(0 < p.mean < 100 for p in literature.PUBLISHED)


def test_numbers_of_an_unknown_student_stand_beside_no_row_of_ours():
    """Breaks when numbers whose student nobody knows are given one, or claim the ConvNet's cell."""
    unknown = [row for row in literature.PUBLISHED if "2511.17914" in row.source]
    assert len(unknown) == 6
    assert {row.student for row in unknown} == {literature.NOT_SAID}
    assert literature.find("cifar10", 100, 10, "edc").mean == 53.2


def test_protocols_of_other_programs_are_said():
    """Breaks when the number of a method that matches gradients or embeddings loses its mark."""
    marked = {row.method for row in literature.PUBLISHED if row.protocol}
    assert marked == {"dc", "idm", "dream"}


@pytest.mark.parametrize("data", FILES)
def test_every_printed_cell_is_an_argument(data):
    """Breaks when a cell of the tables cannot be run, or a method's preset does not fit its data.

    Methods that this program does not have yet are left out, and come in by themselves.
    """
    get_config = load(data)
    printed = {
        (row.imbalance_factor, row.ipc, row.method)
        for row in literature.PUBLISHED
        if row.data == data and row.method in configs.METHODS
    }
    assert len(printed) >= 10
    for factor, ipc, method in sorted(printed):
        config = get_config(f"if{factor}_ipc{ipc},{method}")
        configs.validate(config)
        assert config.data.source == data
        assert (config.data.imbalance_factor, config.distill.ipc) == (factor, ipc)
        assert config.distill.method == method


@pytest.mark.parametrize(
    ("data", "factors", "images"),
    [
        ("cifar10", (10, 50, 100, 200), (10, 20, 50)),
        ("cifar100", (10, 20, 50), (10, 20, 50)),
        ("tiny_imagenet", (10, 20, 50, 100), (10, 20, 50)),
        ("imagenet", (5, 10), (10, 20)),
        ("fashion_mnist", (10, 50, 100, 200), (10, 20, 50)),
    ],
)
def test_every_cell_and_every_method_can_be_run(data, factors, images):
    """Breaks when a new method or cell gives a config that is refused when it is run."""
    get_config = load(data)
    cells = [f"if{factor}_ipc{ipc}" for factor in factors for ipc in images]
    arguments = [*cells, *(f"{cells[0]},{method}" for method in configs.METHODS)]
    for argument in arguments:
        config = get_config(argument)
        configs.validate(config)
        assert config.name == f"{data}_lt_{argument.replace(',', '_')}"


def test_the_official_list_of_imagenet_is_not_cut_again():
    config = load("imagenet")("official_ipc10")
    config.data.train_list = "ImageNet_LT_train.txt"
    configs.validate(config)
    config.data.subset = "long_tail"
    with pytest.raises(UserError, match=r"needs --config\.data\.subset=as_is"):
        configs.validate(config)


@pytest.mark.parametrize(("data", "cell"), [("cifar10", "if100_ipc1"), ("cifar100", "if50_ipc10")])
def test_what_was_not_released_is_not_called_published(data, cell):
    with pytest.raises(UserError, match=f"{cell} has no released settings.*if10_ipc10"):
        load(data)(f"{cell},as_published")
