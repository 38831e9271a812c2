"""Breaks when a number of results.csv may stand beside a command that did not make it."""

import pytest

from ltdd_jax.errors import UserError
from tests.results import made_up
from tests.results.made_up import make_config
from tests.scripts import load_script

command_settings = load_script("command_settings")
TABLE = f"python -m ltdd_jax.table --config={made_up.ROOT}/configs/tables/cifar10_small.py"


def make_cell() -> dict:
    """The settings of the cell `datm` of the small table, nested."""
    jobs = command_settings.cells.make_jobs(
        *command_settings.cells.load_table("cifar10_small:if100_ipc10")
    )
    return next(job.config.to_dict() for job in jobs if job.name == "datm")


def test_other_programs_are_taken_as_they_are():
    command_settings.check_command("python plot.py --config=x.py", make_config())


def test_the_last_of_several_is_compared_and_where_and_how_fast_is_not():
    twice = f"{made_up.DIGITS} --config.net.width=7 && {made_up.DIGITS}"
    command_settings.check_command(twice, make_config())
    config = make_config()
    config["runtime"]["log_steps"] = 7
    command_settings.check_command(made_up.DIGITS, config)


@pytest.mark.parametrize("more", ["", " --only=datm", " --only='d*' --config.data.data_dir=DIR"])
def test_a_table_is_compared_by_its_cell(more):
    command_settings.check_command(TABLE + more, make_cell(), "datm")


@pytest.mark.parametrize(
    "command, name, words",
    [
        (f"{TABLE}:if10_ipc10", "datm", "gives data.imbalance_factor=10.*the run had 100"),
        (f"{TABLE} --config.net.width=7", "datm", "gives net.width=7, but the run had 32"),
        (TABLE, "dm", "gives distill.method=dm, but the run had datm"),
        (TABLE, "datm2", "makes no cell 'datm2'"),
        (f"{TABLE} --only=dm", "datm", "makes no cell 'datm'"),
    ],
)
def test_a_table_with_other_settings_or_without_the_cell_is_refused(command, name, words):
    with pytest.raises(UserError, match=words):
        command_settings.check_command(command, make_cell(), name)
