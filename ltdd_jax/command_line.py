"""One clear sentence for every mistake in the flags or in a config file."""

import contextlib
import pathlib
import re
import runpy
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from ltdd_jax import config, records, validation
from ltdd_jax.data import sources
from ltdd_jax.errors import UserError

_HERE = pathlib.Path(__file__).parent
# In an installed package the configs lie inside of it, in a checkout beside it.
CONFIGS = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"
MISSING_CONFIG = "--config is missing: give --config=configs/digits_lt.py, for instance"

HELP = """ltdd_jax: long-tailed dataset distillation. Turns a training set whose classes have very
different sizes into a few synthetic images per class, and measures what they are worth.

  --config=FILE[:VARIANT,METHOD]  settings; METHOD is dam_ed (the default), datm, mtt, herding, ...;
                                  the name of a packaged config, such as digits_lt, does as well
  --config.SECTION.FIELD=VALUE    overrides one of them; ltdd_jax/fields.py lists them all
  --workdir=DIR                   where results go; without it, runs/<config name>
  --stage=experts|distill|evaluate  one stage, from what is there; without it, all of them
  --set=NAME                      a further distilled set in the same directory
  --dry_run                       only say what would be done and what it costs

Examples:
  python -m ltdd_jax.main --config=configs/pictures.py --config.data.path=FOLDER_OR_TAR
  python -m ltdd_jax.main --config=configs/digits_lt.py
  python -m ltdd_jax.main --config=configs/cifar10_lt.py:if100_ipc10,datm --config.data.data_dir=DIR
  python -m ltdd_jax.main --config=configs/digits_lt.py --stage=evaluate --config.net.name=mlp

Afterwards, for other libraries:
  ltdd export DIR --format=png|huggingface|torch|tfds|webdataset --out=FOLDER

The same command continues a run that was stopped. For several machines see docs/tpu_vm.md."""


def find_packaged(argv: Sequence[str]) -> list[str]:
    """The command line with `--config=NAME` replaced by the file of that packaged config.

    A path that exists, or that ends in .py, stays as it is.
    """
    found, is_value = [], False
    for argument in argv:
        match = re.fullmatch(r"(--?config=|)([\w.-]+?)(:.*|)", argument, re.DOTALL)
        if match and (match[1] or is_value):
            path = CONFIGS / f"{match[2]}.py"
            if path.exists() and not pathlib.Path(match[2]).exists():
                argument = f"{match[1]}{path}{match[3]}"
        is_value = argument in ("--config", "-config")
        found.append(argument)
    return found


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the command line asks what the program does."""
    return any(
        re.fullmatch(r"-h|--?help(short|full|xml)?(=true)?", argument) for argument in argv[1:]
    )


def list_overrides(argv: Sequence[str]) -> list[str]:
    """Dotted names of the fields that the command line sets."""
    matches = (re.match(r"--?(?:no)?config\.([^=\s]+)", argument) for argument in argv)
    return [match[1] for match in matches if match]


def check_overrides(argv: Sequence[str]) -> None:
    """Refuses `--config.x.y` arguments that name no field.

    Raises:
      UserError: names the argument and the closest field.
    """
    fields = list(_defaults())
    given = False
    for argument in argv:
        given = given or re.match("--?config($|=)", argument) is not None
        found = re.match(r"--?(?:no)?config\.([^=\s]+)", argument)
        if found and found[1] == "distill.method":
            raise UserError(
                f"{argument} would change the name alone: choose the method after the colon of the "
                f"config file, --config={_config_path(argv)}:METHOD"
            )
        if found and not given and _config_path(argv):
            raise UserError(f"{argument} stands before --config=FILE: give --config=FILE first")
        if not found or found[1] in fields:
            continue
        # The config file may register a family of methods, whose fields exist once it ran. What
        # is wrong with the file itself is said when it is read as a flag.
        with contextlib.suppress(Exception):
            runpy.run_path(_config_path(argv))
        fields = list(_defaults())
        name = found[1]
        if name in fields:
            continue
        inside = [field for field in fields if field.startswith(f"{name}.")]
        if inside:
            raise UserError(f"--config.{name} is a section: set a field, such as {inside[0]}")
        raise UserError(
            f"--config.{name} is not a field of the config"
            f"{validation.suggest(name, fields, '--config.')}; ltdd_jax/fields.py lists them all"
        )


def check_data(settings: ConfigDict) -> None:
    """Finds in a moment what is wrong with the settings, and with where and how the data lie.

    Raises:
      UserError: one sentence with the remedy.
    """
    config.validate(settings, settled=False)
    splits = config.list_splits(settings)
    sources.check_source(settings.data.source, splits, **config.locate_data(settings))


def explain(error: Exception, argv: Sequence[str]) -> str:
    """Says in one line what is wrong after parsing `argv` raised `error`.

    Args:
      error: from absl, from ml_collections or from the Python code of the config file.
      argv: the command line.
    """
    return " ".join(_explain(error, argv).splitlines())


def _explain(error, argv):
    match error:
        case UserError():
            return str(error)
        case flags.UnrecognizedFlagError() if error.flagname.startswith("config."):
            return MISSING_CONFIG  # such flags come to be when the config file is read
        case flags.IllegalFlagValueError():
            field = re.match(r"(?s)flag --config\.(\S+?)=(.*?): ", str(error))
            if field:
                return validation.describe_wrong_type(field[1], field[2], _defaults()[field[1]])
            if not str(error).startswith("flag --config="):
                return str(error)
            return _explain_config_file(str(error), argv)
        case flags.Error():
            return str(error)
        case OSError() if not pathlib.Path(_config_path(argv)).is_file():
            return f"--config={_config_path(argv)} cannot be read: there is no such config file"
    return _explain_config_file("".join(traceback.format_exception(error)), argv)


def _explain_config_file(trace: str, argv: Sequence[str]) -> str:
    """One line from the traceback of an exception in the config file."""
    path = _config_path(argv)
    lines = re.findall(rf'File "{re.escape(path)}", line (\d+)', trace)
    place = f"{path}, line {lines[-1]}" if lines else f"--config={path}"
    unknown = re.search(r'Key "(\w+)" does not exist', trace)
    if unknown:
        hint = validation.suggest(unknown[1], list(_defaults()))
        return f"{place}: {unknown[1]} is not a field of the config{hint}"
    return f"{place}: {trace.strip().splitlines()[-1]}"


def _config_path(argv: Sequence[str]) -> str:
    """The file named by --config=FILE:VARIANT or --config FILE:VARIANT."""
    path = ""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if argument in ("--config", "-config"):
            path = following
        elif re.match("--?config=", argument):
            path = argument.partition("=")[2]
    return path.partition(":")[0]


def _defaults() -> dict:
    return records.flatten(config.base_config().to_dict())
