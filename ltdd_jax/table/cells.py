"""What a table is made of: cells, and the directories in which their runs lie."""

import ast
import dataclasses
import functools
import pathlib
import re
import runpy
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ltdd_jax import command_line, records, validation
from ltdd_jax import config as configs
from ltdd_jax.errors import UserError

_HASH_DIGITS = 8
_PLACES = ("path", "train_list")  # fields of the section data that may stand for other pictures


# Field of a cell -> what it must be; a text in place of a tuple would be taken letter by letter.
_TYPES = (
    *((field, str, "a text") for field in ("config", "method", "argument", "name", "title")),
    ("overrides", Mapping, "a dict of field -> value"),
    ("notes", (tuple, list), "a tuple of texts"),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
      config: name of a packaged config, such as "digits_lt", or a path that ends in .py, relative
        to the file of the table.
      method: of `ltdd_jax.config.METHODS`.
      argument: what follows the colon of the config, without the method.
      overrides: dotted field -> value.
      name: of the cell and of its distilled set; "" is made of the config, argument and method.
      title: of its row; "" is the method's.
      notes: differences from the published set-up that no field shows.
    """

    config: str
    method: str
    argument: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """What `get_table` of a file in `configs/tables/` returns.

    Attributes:
      title: heading of the table.
      cells: in the order in which they stand.
      name: of the directory of the results where none is given.
    """

    title: str
    cells: tuple[Cell, ...]
    name: str


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell with its settings.

    Attributes:
      name: of the cell, unique in the table.
      cell: what the table says.
      config: settings of the run.
      base: the config before anything was overridden, to name the differences from.
      directory: below the working directory; cells of the same data and seed share it, with
        everything in it that no method has a part in.
    """

    name: str
    cell: Cell
    config: ConfigDict
    base: ConfigDict
    directory: str

    @property
    def identity(self) -> str:
        """Hash of all settings that a result may depend on, and of where pictures of one's own lie.

        A cell whose pictures have moved runs again, which finds out whether they are the same: then
        everything else is there already.
        """
        sections = [name for name in self.config if name not in ("runtime", "name")]
        found = configs.identity(self.config, [*sections, "runtime.precision"])
        return configs.identity_hash(found | ({"places": self.places} if self.places else {}))

    @property
    def places(self) -> dict[str, str]:
        """Where pictures of one's own lie, by field of the section data; empty without any."""
        return {name: self.config.data[name] for name in _PLACES if self.config.data[name]}


def load_table(argument: str) -> tuple[Table, pathlib.Path]:
    """Reads `FILE.py:VARIANT`, or the name of a packaged table such as `digits:ci`.

    Returns:
      The table, and the directory to which its paths are relative.

    Raises:
      UserError: there is no such file, or it does not make a table.
    """
    file, _, variant = argument.partition(":")
    path = pathlib.Path(file)
    packaged = command_line.CONFIGS / "tables" / f"{file}.py"
    if path.suffix != ".py" and packaged.exists():
        path = packaged
    make = _read_function(path, "get_table", f"--config={argument}")
    table = make(variant)
    if not isinstance(table, Table) or not table.cells:
        raise UserError(f"--config={argument}: get_table returns no Table with cells")
    _check_types(table, argument)
    return table, path.parent


def _check_types(table, argument):
    """Names what is no tuple: "(Cell(...))" and "('a note')" are none without a comma."""
    if not isinstance(table.cells, (tuple, list)) or not all(
        isinstance(cell, Cell) for cell in table.cells
    ):
        raise UserError(f"--config={argument}: the cells of a Table must be a tuple of Cells")
    for number, cell in enumerate(table.cells, 1):
        for field, kinds, words in _TYPES:
            if not isinstance(getattr(cell, field), kinds):
                raise UserError(
                    f"--config={argument}: {field} of cell {number} must be {words}, not "
                    f"{getattr(cell, field)!r}"
                )


def make_jobs(
    table: Table, home: pathlib.Path, overrides: Mapping[str, str] | None = None
) -> list[Job]:
    """The cells of a table with their settings, validated.

    Args:
      table: from `load_table`.
      home: to which paths of configs are relative.
      overrides: dotted field -> text, as on the command line; for all cells.

    Raises:
      UserError: names the cell that cannot be, and why.
    """
    jobs: dict[str, Job] = {}
    for cell in table.cells:
        name = cell.name or _name_cell(cell)
        if name in jobs:
            raise UserError(f"two cells of the table are called {name}: give one of them a name")
        if not validation.is_set_name(name):  # which it names too
            raise UserError(
                f"{name!r} cannot name a cell: take at most 100 letters, digits, '.', '_' and '-' "
                "(200 bytes)"
            )
        try:
            jobs[name] = _make_job(name, cell, home, overrides or {})
        except UserError as error:
            raise UserError(f"cell {name}: {error}") from error
    judges = {job.config.data.judge: name for name, job in jobs.items()}
    if len(judges) > 1:
        raise UserError(
            f"cell {judges['test']} is judged on the test set and cell {judges['held_out']} on "
            "held-out training images: give all cells of a table the same data.judge"
        )
    return _separate(list(jobs.values()))


def parse_value(field: str, text: str) -> Any:
    """The value that a text on the command line stands for; text where it cannot be read."""
    defaults = records.flatten(configs.base_config().to_dict())
    default = defaults.get(field, "")
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text  # of the wrong type, which `set_field` says
    is_single = isinstance(default, tuple) and not isinstance(value, (tuple, list))
    return (value,) if is_single else tuple(value) if isinstance(default, tuple) else value


def _make_job(name, cell, home, overrides):
    path = home / cell.config if cell.config.endswith(".py") else _packaged(cell.config)
    make = _read_function(path, "get_config", f"the config {cell.config}")
    words = ",".join(word for word in (cell.argument, cell.method) if word)
    base, config = make(words), make(words)
    for field, value in cell.overrides.items():
        configs.set_field(config, field, value)
    for field, text in overrides.items():
        configs.set_field(config, field, parse_value(field, text))
    if config.distill.method != cell.method:
        raise UserError(f"the config makes it {config.distill.method} and not {cell.method}")
    configs.validate(config, settled=False)
    return Job(name, cell, config, base, _name_directory(config))


def _separate(jobs):
    """Gives other pictures a directory of their own.

    The first that a table names are where they always were, also after they have moved.
    """
    first: dict[str, dict[str, str]] = {}
    for number, job in enumerate(jobs):
        if first.setdefault(job.directory, job.places) != job.places:
            digest = configs.identity_hash(job.places)[:_HASH_DIGITS]
            jobs[number] = dataclasses.replace(job, directory=f"{job.directory}-{digest}")
    return jobs


def _packaged(name):
    path = command_line.CONFIGS / f"{name}.py"
    if not path.exists():
        known = sorted(found.stem for found in command_line.CONFIGS.glob("*.py"))
        raise UserError(f"there is no config {name}{validation.suggest(name, known)}")
    return path


def _name_cell(cell):
    parts = (pathlib.Path(cell.config).stem, cell.argument.replace(",", "_"), cell.method)
    return "-".join(part for part in parts if part)


def _name_directory(config):
    """One for each seed and data: the part of the config that a directory belongs to."""
    digest = configs.identity_hash(configs.identity(config, ("seed", "data")))[:_HASH_DIGITS]
    source = re.sub(r"\W+", "_", config.data.source)
    return f"{source}-if{config.data.imbalance_factor:g}-seed{config.seed}-{digest}"


def _read_function(path: pathlib.Path, name: str, what: str) -> Callable[[str], Any]:
    """A function of a Python file, called with the words after the colon."""
    if not path.exists():  # asked first: the code of the file may look for others that are missing
        raise UserError(f"{what} cannot be read: there is no file {path}")
    try:
        found = _run_file(str(path)).get(name)
    except UserError:
        raise
    except Exception as error:  # of the Python code of the file
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if found is None:
        raise UserError(f"{path} has no function {name}")

    def call(argument: str) -> Any:
        try:
            return found(argument)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path}: {type(error).__name__}: {error}") from error

    return call


@functools.cache
def _run_file(path: str) -> dict[str, Any]:
    return runpy.run_path(path)
