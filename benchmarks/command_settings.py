"""The settings that a command gives, to compare them with those that a run had."""

import fnmatch
import shlex
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import config_flags

from ltdd_jax import command_line, records
from ltdd_jax.errors import UserError
from ltdd_jax.table import __main__ as table_program
from ltdd_jax.table import cells

# Fields that say where and how fast, not what.
_SILENT = ("name", "runtime.", "budget", "data.data_dir", "data.path", "data.cache", "data.memory",
           "data.max_", "data.follow_links", "experts.path")  # fmt: skip


def check_command(command: str, settings: Mapping[str, Any], set_name: str = "") -> None:
    """Compares the settings that a command gives with those of the run.

    Args:
      command: the last of several that && joins is looked at; one that is no run is taken as it is.
      settings: nested, of the report.
      set_name: of the run, by which a command that makes a table knows its cell.

    Raises:
      UserError: names the first field that differs, or says that the table has no such cell.
    """
    words = shlex.split(command.split("&&")[-1])
    for program, read in _PROGRAMS.items():
        if program in words:
            asked = read(words[words.index(program) + 1 :], set_name)
            break
    else:
        return
    asked, used = (records.flatten(c) for c in (asked.to_dict(), settings))
    for field in sorted(asked.keys() & used.keys()):
        if field.startswith(_SILENT) or asked[field] == "auto":  # the run says what it chose
            continue
        if _plain(asked[field]) != _plain(used[field]):
            raise UserError(
                f"--command gives {field}={asked[field]}, but the run had {used[field]}; give the "
                "command that was used"
            )


def _read_run(words, set_name):
    argv = ["main", *command_line.find_packaged(words)]
    command_line.check_overrides(argv)
    values = flags.FlagValues()
    given = [word for word in argv if word == "main" or word.startswith("--config")]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=given)
    values(given)
    return values.config


def _read_cell(words, set_name):
    args, overrides = table_program.parse(words)
    for job in cells.make_jobs(*cells.load_table(args.config), overrides):
        if job.name == set_name and fnmatch.fnmatch(job.name, args.only):
            return job.config
    raise UserError(f"--command makes no cell {set_name!r}: give the command that was used")


_PROGRAMS = {
    "ltdd_jax.main": _read_run,
    "ltdd": _read_run,
    "ltdd_jax.table": _read_cell,
    "ltdd-table": _read_cell,
}


def _plain(value):
    return [_plain(x) for x in value] if isinstance(value, (list, tuple)) else value
