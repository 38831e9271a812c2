"""Breaks when a user's mistake ends in a traceback, a wrong exit code or a vague message."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from ltdd_jax import command_line
from ltdd_jax.types import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = f"--config={ROOT / 'configs' / 'digits_lt.py'}"


def explanation(*arguments: str) -> str:
    """What `main` would print for these arguments, without starting a process."""
    argv = ["main", *arguments]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        command_line.check_overrides(argv)
        values(argv)
        values.config.to_dict()
    except Exception as error:
        return command_line.explain(error, argv)
    return ""


def test_valid_arguments_need_no_explanation():
    assert explanation(DIGITS, "--config.distill.ipc=3", "--noconfig.data.normalize") == ""
    assert explanation(f"{DIGITS}:smoke,datm", "--config.evaluation.baseline_rates=(0.1,)") == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([DIGITS, "--config.distill.ipx=3"], "did you mean --config.distill.ipc?"),
        ([DIGITS, "--config.num_expert=3"], "did you mean --config.experts.num_experts?"),
        ([DIGITS, "--config.distill={}"], "--config.distill is a section"),
        ([DIGITS, "--config.distill.ipc=abc"], "--config.distill.ipc=abc has the wrong type"),
        ([DIGITS, "--config.distill.ipc", "1.5"], "must be a whole number"),
        ([DIGITS, "--config.data.normalize=maybe"], "must be true or false"),
        ([f"{DIGITS}:smokey"], "did you mean smoke?"),
        ([f"{DIGITS}:smoke,datn"], "did you mean datm?"),
        ([f"{DIGITS}:mtt,datm"], "takes one method, not mtt and datm"),
        (
            [f"{DIGITS}:smoke", "--config.distill.method=datm"],
            "--config.distill.method=datm would change the name alone: choose the method after the "
            f"colon of the config file, {DIGITS}:METHOD",
        ),
        (["--config=nowhere.py", "--config.distill.ipc=3"], "--config=nowhere.py cannot be read"),
        (["--config", "nowhere.py"], "--config=nowhere.py cannot be read"),
        (["--config.distill.ipc=3"], "--config is missing"),
        (["--config"], "Missing value"),
    ],
)
def test_mistake_is_named_in_one_line(arguments, expected):
    message = explanation(*arguments)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("config.distill.ipx = 3", "line 4: ipx is not a field of the config (did you mean"),
        ("config.distill.ipc = 'a'", "line 4: TypeError"),
        ("config.distill.ipc = (3", "line 4: SyntaxError"),
    ],
)
def test_mistake_in_a_config_file_is_named_with_its_line(tmp_path, line, expected):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ltdd_jax.config import base_config\n"
        "def get_config():\n"
        "    config = base_config()\n"
        f"    {line}\n"
        "    return config\n"
    )
    message = explanation(f"--config={path}")
    assert f"{path}, {expected}" in message
    assert "\n" not in message


def test_a_file_that_a_config_misses_is_not_the_config(tmp_path):
    """Breaks when a config that is there is said not to be, for what its code looks for."""
    path = tmp_path / "own.py"
    path.write_text("def get_config():\n    return open('classes.txt').read()\n")
    found = explanation(f"--config={path}")
    assert found.startswith(f"{path}, line 2: ") and "No such file" in found


def test_check_overrides_raises_a_user_error():
    with pytest.raises(UserError, match="is not a field"):
        command_line.check_overrides(["--config=a.py", "--noconfig.data.normalized"])


# The program with a pipeline that only raises `NAME`.
STAND_IN = """
import contextlib, sys, types
from ltdd_jax import main
from ltdd_jax.errors import UserError
def run(config, workdir, stage, set_name, **_): raise NAME(f"{workdir} {stage} {set_name}")
sys.modules["ltdd_jax.pipeline"] = types.SimpleNamespace(
    run=run, leave=int, acknowledge_signals=contextlib.nullcontext
)
main.app.run(main.main, flags_parser=main.parse_flags)
"""


CHOICES = ["--stage=experts", "--set=other"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Exit code and both streams of some command lines, run side by side."""
    directory = tmp_path_factory.mktemp("work")
    program = ["-m", "ltdd_jax.main"]
    cases = {
        "unknown_field": [*program, DIGITS, "--config.distill.ipx=3"],
        "impossible_value": [*program, DIGITS, "--config.distill.ipc=0"],
        "unknown_data": [*program, DIGITS, "--config.data.source=mnits"],
        "unknown_flag": [*program, DIGITS, "--workdr=here"],
        "stray_argument": [*program, DIGITS, "smoke"],
        "no_config": program,
        "help": [*program, "--help"],
        "export_help": [*program, "export", "--help"],
        "export_mistake": [*program, "export", "nowhere", "--format=png", "--out=out"],
        "interrupt": ["-c", STAND_IN.replace("NAME", "KeyboardInterrupt"), f"{DIGITS}:smoke"],
        "failure": ["-c", STAND_IN.replace("NAME", "UserError"), DIGITS, *CHOICES],
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
    running = {
        name: subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, arguments in cases.items()
    }
    results = {name: (*p.communicate(timeout=120), p.returncode) for name, p in running.items()}
    return results, list(directory.iterdir())


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("unknown_field", "--config.distill.ipx is not a field"),
        ("impossible_value", "--config.distill.ipc=0 is not possible"),
        ("unknown_data", "--config.data.source=mnits is not possible"),
        ("unknown_flag", "workdr"),
        ("stray_argument", "unexpected argument 'smoke'"),
        ("no_config", "--config is missing"),
        ("failure", "error: runs/digits_lt experts other\n"),
        ("export_mistake", "error: nowhere/synthetic/synthetic.npz is missing"),
    ],
)
def test_program_ends_with_one_message_and_code_2(outcomes, case, expected):
    _, errors, code = outcomes[0][case]
    assert code == 2
    assert expected in errors
    messages = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1
    assert "Traceback" not in errors


def test_program_leaves_nothing_behind_after_a_mistake(outcomes):
    assert outcomes[1] == []


def test_interrupt_says_how_to_continue(outcomes):
    _, errors, code = outcomes[0]["interrupt"]
    assert code == 130
    assert "runs/digits_lt_smoke is usable, the same command continues" in errors
    assert "Traceback" not in errors


def test_help_names_the_flags(outcomes):
    output, _, _ = outcomes[0]["help"]
    for flag in ("--config", "--workdir", "--stage", "--set"):
        assert flag in output


def test_export_is_a_part_of_the_command(outcomes):
    output, _, code = outcomes[0]["export_help"]
    assert code == 0 and output.startswith("usage: ltdd export") and "--format" in output


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"]])
def test_help_takes_less_than_two_seconds(arguments):
    """Of CPU time, which others on the machine do not change; breaks when JAX is imported."""
    code = (
        "import runpy, resource, sys\n"
        f"sys.argv = ['ltdd', *{arguments}]\n"
        "try: runpy.run_module('ltdd_jax.main', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "assert 'jax' not in sys.modules\n"
        "sys.exit(used.ru_utime + used.ru_stime >= 2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--config=digits_lt"], ["--config={}/digits_lt.py"]),
        (["--config=digits_lt:smoke,mtt"], ["--config={}/digits_lt.py:smoke,mtt"]),
        (["--config", "cifar10_lt:if10_ipc10", "--set=a"],
         ["--config", "{}/cifar10_lt.py:if10_ipc10", "--set=a"]),
        (["--config=configs/digits_lt.py:smoke"], ["--config=configs/digits_lt.py:smoke"]),
        (["--config=nowhere", "--workdir=digits_lt"], ["--config=nowhere", "--workdir=digits_lt"]),
    ],
)  # fmt: skip
def test_packaged_configs_are_found_by_name(given, expected):
    """Breaks when a name is not replaced by the file, or anything else is."""
    place = str(ROOT / "configs")
    assert command_line.find_packaged(given) == [text.replace("{}", place) for text in expected]
