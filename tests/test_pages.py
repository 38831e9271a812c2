"""Every code block of README, CONTRIBUTING and docs/ works, or says why it is not tried here.

Breaks when a page shows a command, a field, a name or a file that is not there (any more).
"""

import fnmatch
import functools
import inspect
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

import ltdd_jax
from ltdd_jax import api, command_line, export, fields, nets, presets
from ltdd_jax import config as configs
from ltdd_jax.data import normalize, sources
from ltdd_jax.export import __main__ as export_command
from ltdd_jax.table import __main__ as table_program
from ltdd_jax.table import cells
from tests import documents

# Pages whose Python is executed by tests of their own.
ELSEWHERE = {"README.md": "tests/test_readme.py", "docs/add_a_method.md": "tests/test_docs.py"}
# Programs that are not of this package; the rest of such a line is looked at no further.
FOREIGN = ("git", "python3", "python3.11", "mkdocs", "tensorboard", "pre-commit", "ruff",
           "mypy", "jupytext", "cd")  # fmt: skip
WORKS = {"config", "workdir", "stage", "set", "dry_run", "distributed", "coordinator_address",
         "num_processes", "process_id"}  # fmt: skip
BASH = documents.find_blocks("bash")


def split_commands(text: str) -> list[list[str]]:
    """The commands of a block as lists of words; joined lines, without comments."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "||", "|")), len(words))
            commands.append(words[:end])
            words = words[end + 1 :]
    return [words for words in commands if words]


def check_pipeline(words: list[str]) -> None:
    """The arguments of a run: flags that exist, a config that is valid."""
    argv = ["main", *command_line.find_packaged(words)]
    names = [re.match(r"--(?:no)?([\w]+)", word)[1] for word in words if word.startswith("--")]
    assert set(names) <= WORKS, names
    command_line.check_overrides(argv)
    values = flags.FlagValues()
    given = [word for word in argv if word == "main" or word.startswith("--config")]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=given)
    values(given)
    configs.validate(values.config)


def check_table(words: list[str]) -> None:
    """The arguments of a table: options that exist, cells whose configs are valid."""
    args, overrides = table_program.parse(words)
    jobs = cells.make_jobs(*cells.load_table(args.config), overrides)
    assert fnmatch.filter([job.name for job in jobs], args.only), args.only


def check_command(words: list[str]) -> None:
    """Raises unless the command is one that this package, its tests or a known program takes."""
    program, *rest = words
    if re.fullmatch(r"(\.venv/bin/)?python", program):
        if rest[:1] != ["-m"]:
            assert (documents.ROOT / rest[0]).exists(), rest[0]
            return
        program, *rest = rest[1:]
    match program.removeprefix(".venv/bin/"):
        case "ltdd" | "ltdd_jax.export" if program.endswith("export") or rest[0] == "export":
            arguments = rest[rest[:1] == ["export"] :]
            export_command.make_parser("ltdd export").parse_args(arguments)
        case "ltdd" | "ltdd_jax.main":
            check_pipeline(rest)
        case "ltdd_jax.table" | "ltdd-table":
            check_table(rest)
        case "ltdd_jax.data.prepare":
            assert rest[0] in ("cifar10", "cifar100")
            assert all(re.match("--(data_dir|archive)=", word) for word in rest[1:])
        case "pip":
            setup = (documents.ROOT / "setup.py").read_text(encoding="utf-8")
            for extra in re.findall(r"\[([\w-]+)\]", " ".join(rest)):
                assert f'"{extra}": [' in setup, extra
        case "pytest":
            files = [word for word in rest if word.startswith("tests/")]
            assert all((documents.ROOT / name).exists() for name in files)
        case name:
            assert name in FOREIGN, " ".join(words)


@pytest.mark.parametrize("block", [b for b in BASH if not b.reason], ids=str)
def test_commands_are_possible(block, monkeypatch):
    """A run itself takes too long: its flags are parsed and its config is read and checked."""
    if re.search(r"--config=\w+\.py", block.text):
        pytest.skip("the page itself has this config; tests/test_docs.py writes and reads it")
    monkeypatch.chdir(documents.ROOT)
    commands = split_commands(block.text)
    assert commands
    for words in commands:
        check_command(words)


def test_the_check_of_commands_sees_mistakes(monkeypatch):
    monkeypatch.chdir(documents.ROOT)
    wrong = [
        "python -m ltdd_jax.main --config=configs/digits_lt.py --config.distill.ipx=3",
        "python -m ltdd_jax.main --config=configs/digits_lt.py --workdr=a",
        "ltdd --config=digits_lt:smokey",
        "ltdd export DIR --format=zip --out=a",
        "pip install -e '.[nothing]'",
        "python -m ltdd_jax.table --config=configs/tables/digits.py --ony=a",
        "python benchmarks/nothing.py",
        "conda activate x",
    ]
    for line in wrong:
        with pytest.raises((Exception, SystemExit)):
            check_command(shlex.split(line))


def test_every_block_is_run_checked_or_marked():
    """Breaks when a page has code in another language, or indented so that nobody looks at it."""
    languages = {b.language for b in documents.find_blocks() if not b.reason}
    assert languages <= {"bash", "python", "text", "bibtex"}
    marked = [b for b in documents.find_blocks() if b.reason]
    assert 5 < len(marked) < 25 and all(len(b.reason) > 8 for b in marked)
    code = re.compile(r"^    .*(?:python |pip |ltdd |import |--config)", re.MULTILINE)
    for page in documents.PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert code.findall(prose) == [], page


def pages_with_python() -> list[str]:
    found = dict.fromkeys(b.page for b in documents.find_blocks("python") if not b.reason)
    return [page for page in found if page not in ELSEWHERE]


@pytest.mark.parametrize("page", pages_with_python())
def test_python_of_the_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page in order, in one namespace, beside a finished run.

    What takes long is not done again: tests/test_readme.py evaluates by the same block.
    """
    documents.write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("distill_dataset", "evaluate_dataset"):
        stand_in = functools.partial(bind, getattr(api, name))
        monkeypatch.setattr(ltdd_jax, name, stand_in, raising=False)
    monkeypatch.setattr(nets, "REGISTRY", dict(nets.REGISTRY))
    names = {}
    with documents.as_for_a_user():
        for block in documents.find_blocks("python", page):
            if ", torch" not in block.text:  # that one is in test_torch_example
                exec(compile(block.text, page, "exec"), names)
    CHECKS.get(page, lambda names: None)(names)


def bind(function, *args, **more):
    """The arguments, if `function` takes them."""
    return inspect.signature(function).bind(*args, **more).arguments


def check_use(names):
    assert names["result"]["num_epochs"] == 200
    assert pathlib.Path("EXPORTED/README.md").exists()
    assert names["model"].score(names["white"], names["test"].labels) > 0.5


def check_config(names):
    config = names["get_config"]()
    configs.validate(config)
    assert config.distill.method == "dam_ed"


def check_network(names):
    assert names["logits"].shape == (4, 10)


def check_arrays(names):
    assert names["distilled"]["images"].dtype == np.uint8


def check_tables(names):
    assert len(names["get_table"]().cells) == 3


CHECKS = {
    "docs/tables.md": check_tables,
    "docs/use_a_set.md": check_use,
    "docs/configure.md": check_config,
    "docs/add_a_network_or_data.md": check_network,
    "docs/own_data.md": check_arrays,
}


def test_torch_example(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not a dependency of the tests")
    documents.write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    (block,) = [b for b in documents.find_blocks("python") if ", torch" in b.text]
    torch.manual_seed(0)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other slow tests that share the cores
    names = {}
    exec(block.text, names)
    torch.set_num_threads(num_threads)
    test = sources.load_source("digits", "test")
    pre = normalize.load("runs/digits_lt/preprocessing.npz")
    white = names["whiten"](test.images)
    np.testing.assert_allclose(
        white.permute(0, 2, 3, 1), normalize.apply(pre, test.images), atol=1e-5
    )
    predicted = names["net"](white).argmax(dim=1).numpy()
    assert np.mean(predicted == test.labels) > 0.5


def test_export_command(tmp_path, monkeypatch):
    """Breaks when an option of the command or a format in the table has another name."""
    documents.write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    (block,) = [b for b in documents.find_blocks("bash", "docs/use_a_set.md") if "export" in b.text]
    assert export_command.main(block.text.split()[2:]) == 0
    assert len(list((tmp_path / "FOLDER" / "images").glob("*/*.png"))) == 20
    page = (documents.ROOT / "docs" / "use_a_set.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert [name for name in named if name in export.FORMATS] == list(export.FORMATS)


HOOKS = runpy.run_path(str(documents.ROOT / "docs" / "hooks.py"))


def test_the_reference_has_every_field_with_its_text():
    """Breaks when the page of settings leaves out a field, a family of methods or a default."""
    text = HOOKS["render_fields"]()
    table = fields.flatten_fields()
    assert len(table) > 100
    for path, field in table.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{path}` |")]
        assert field.text.replace("|", "\\|") in row and row.count(" | ") == 3, path
        assert (repr(field.default) if field.default != "" else "empty") in row, path
    methods = HOOKS["render_methods"]()
    assert re.findall(r"^\| `(\w+)` \|", methods, re.MULTILINE) == list(presets.PRESETS)


def test_links_out_of_the_pages_become_names():
    """Breaks when a link leads to a file that the site does not have."""
    links = {
        "[the page](../benchmarks/x.md)": "the page (`benchmarks/x.md` in the repository)",
        "[`configs/c.py`](../configs/c.py#d)": "`configs/c.py`",
        "[a](shards.md) ![b](../q)": "[a](shards.md) ![b](../q)",
    }
    for link, name in links.items():
        assert HOOKS["name_files"](f"See {link}.", "") == f"See {name}."
    assert HOOKS["name_files"]("[s](../shards.md)", "reference") == "[s](../shards.md)"


def find_anchors(page: pathlib.Path) -> list[str]:
    """Of the headings of a page, as hosts of markdown and the site name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings]


def test_links_and_pages_of_the_site_exist():
    """Breaks when a link or its anchor is broken, or a page is not in the navigation."""
    navigation = (documents.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in documents.PAGES:
        text = page.read_text(encoding="utf-8")
        for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)", text):
            if "://" not in link:
                to = page.parent / link if link else page
                assert to.exists(), (page.name, link)
                assert not anchor or to.suffix != ".md" or anchor in find_anchors(to), anchor
        path = page.relative_to(documents.ROOT)
        if path.parts[0] == "docs" and (path.parts[1] != "results" or path.name == "index.md"):
            assert f" {path.relative_to('docs')}\n" in navigation, path


def test_importing_documents_leaves_nothing(tmp_path):
    """Breaks when `mkdocs build` without JAX on the machine's accelerator would start it."""
    code = "import runpy, sys; runpy.run_path('docs/hooks.py'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=documents.ROOT).returncode == 0
