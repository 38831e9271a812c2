"""Breaks when a module imports against the direction of the layers, or in a circle.

main → pipeline → {experts, distill, evaluate} → training → {data, nets, losses} → types
{main, table} → pipeline; api → {pipeline, dataset}
config → validation → fields → {presets, budget}
"""

import ast
import pathlib

import pytest

import ltdd_jax

PACKAGE = pathlib.Path(ltdd_jax.__file__).parent
_LEAVES = {"types", "errors", "backend"}
_BASE = {"data", "nets", "losses", *_LEAVES}
_STAGE = {"training", *_BASE}

# What a part (a module or folder right under ltdd_jax) may import, besides itself.
ALLOWED = {
    "errors": set(),
    "types": {"errors"},
    "backend": set(),
    "losses": _LEAVES,
    "nets": _LEAVES,
    "data": _LEAVES,
    "training": _BASE,
    "experts": {"data", "losses", "nets", "training", *_LEAVES},
    "teachers": {"data", "losses", "nets", "training", *_LEAVES},
    "distill": {"data", "losses", "nets", "training", *_LEAVES},
    "evaluate": {"data", "losses", "nets", "training", *_LEAVES},
    "report": {"evaluate", *_LEAVES},
    "runtime": _LEAVES,
    "records": set(),
    "presets": set(),
    "row_kinds": {"evaluation_fields", "presets"},
    "budget": {"choices", "method_budgets", "row_kinds"},
    "choices": set(),
    "method_budgets": {"choices"},
    "literature": set(),
    "rules": set(),
    "teacher_fields": {"rules"},
    "evaluation_fields": {"rules"},
    "family_fields": {"rules"},
    "label_fields": {"rules"},
    "fields": {
        *(
            "budget",
            "evaluation_fields",
            "family_fields",
            "label_fields",
            "presets",
            "rules",
            "teacher_fields",
        ),
    },
    "validation": {"fields", "presets", "row_kinds", *_LEAVES},
    "families": {"fields", "presets", "validation"},
    "catalogue": {"families", "fields", "presets", "rules", "validation", *_LEAVES},
    "config": {"catalogue", "fields", "presets", "row_kinds", "validation", "records", *_LEAVES},
    "command_line": {"config", "data", "validation", "records", *_LEAVES},
    "pipeline": {
        *("budget", "config", "families", "presets", "records", "row_kinds", "runtime"),
        *("validation", "experts", "teachers", "distill", "evaluate", "report"),
        *_STAGE,
    },
    "dataset": {"data", "runtime", *_LEAVES},
    "export": {"data", "dataset", "errors"},
    "geometry": {"distill", "losses", "nets", "types"},
    "api": {"config", "dataset", "evaluate", "pipeline", "runtime", *_BASE},
    "main": {"pipeline", "command_line", "export", *_LEAVES},
    "table": {
        *("command_line", "config", "evaluate", "literature", "pipeline", "presets", "records"),
        *("report", "runtime", "validation", *_LEAVES),
    },
}
# Single modules with one more liberty, and why.
EXCEPTIONS = {
    "experts.trajectory": {"runtime", "records"},  # writes checkpoints
}
# Modules that may import no more than this of their own folder: what a method is stands below the
# families of methods, and what a network is below the networks.
INSIDE = {
    "distill": {"distill.method", "distill.selection", "distill.trajectory"},
    "distill.method": set(),
    "distill.kernel": {"distill.initialize", "distill.kernel_step", "distill.method"},
    "distill.kernel_step": {"distill.method"},
    "distill.selection": {"distill.method", "distill.initialize"},
    "distill.trajectory": {
        *("distill.initialize", "distill.matching", "distill.method", "distill.sampling"),
        *("distill.state", "distill.step"),
    },
    "distill.confident_crops": {"distill.initialize", "distill.method"},
    "distill.statistics": set(),
    "distill.statistics_loss": {"distill.statistics"},
    "distill.observers": {"distill.method", "distill.statistics", "distill.statistics_loss"},
    "distill.recovery": {
        *("distill.confident_crops", "distill.initialize", "distill.method", "distill.observers"),
        *("distill.statistics", "distill.statistics_loss"),
    },
    "catalogue.crops": set(),
    "catalogue.recovery": {"catalogue.crops"},
    "distill.step": {"distill.matching", "distill.state", "distill.student"},
    "nets.sizes": {"nets.partition"},
    "nets.partition": set(),
    "nets.layers": {"nets.convolution", "nets.partition"},
    "pipeline.workspace": set(),
    "pipeline.claims": {"pipeline.workspace"},
    "pipeline.problem": set(),
    "pipeline.settle": set(),
    "pipeline.loop": set(),
    "pipeline.health": set(),
    "pipeline.run": {"pipeline.problem", "pipeline.workspace"},
    "pipeline.live": {"pipeline.artefacts", "pipeline.run"},
    "pipeline.artefacts": {"pipeline.run"},
    "pipeline.experts": {
        *("pipeline.health", "pipeline.loop", "pipeline.problem", "pipeline.run"),
        "pipeline.workspace",
    },
    "pipeline.teachers": {
        *("pipeline.experts", "pipeline.health", "pipeline.loop", "pipeline.problem"),
        "pipeline.run",
    },
    "pipeline.look": {"pipeline.experts", "pipeline.run", "pipeline.teachers"},
    "pipeline.distill": {
        *("pipeline.artefacts", "pipeline.experts", "pipeline.health", "pipeline.live"),
        *("pipeline.loop", "pipeline.run", "pipeline.teachers"),
    },
    "pipeline.protocols": {"pipeline.problem", "pipeline.run"},
    "pipeline.labels": {
        *("pipeline.artefacts", "pipeline.experts", "pipeline.protocols", "pipeline.run"),
        "pipeline.teachers",
    },
    "pipeline.rows": {
        *("pipeline.artefacts", "pipeline.claims", "pipeline.labels", "pipeline.protocols"),
        "pipeline.run",
    },
    "pipeline.taught_rows": {
        *("pipeline.artefacts", "pipeline.labels", "pipeline.protocols", "pipeline.rows"),
        *("pipeline.run", "pipeline.teachers"),
    },
    "pipeline.trainers": {
        *("pipeline.health", "pipeline.loop", "pipeline.protocols", "pipeline.rows"),
        "pipeline.run",
    },
    "pipeline.evaluate": {
        *("pipeline.loop", "pipeline.problem", "pipeline.protocols", "pipeline.rows"),
        *("pipeline.run", "pipeline.taught_rows", "pipeline.trainers", "pipeline.transfer"),
    },
    "pipeline.transfer": {"pipeline.problem", "pipeline.rows", "pipeline.run"},
    "pipeline.plan": {
        *("pipeline.artefacts", "pipeline.experts", "pipeline.run", "pipeline.teachers"),
        "pipeline.work",
    },
    "pipeline.work": {
        *("pipeline.protocols", "pipeline.rows", "pipeline.run", "pipeline.taught_rows"),
        *("pipeline.teachers", "pipeline.transfer"),
    },
    "pipeline.cost": {
        *(
            "pipeline.claims",
            "pipeline.distill",
            "pipeline.evaluate",
            "pipeline.experts",
            "pipeline.labels",
            "pipeline.plan",
        ),
        *("pipeline.problem", "pipeline.run", "pipeline.settle", "pipeline.teachers"),
        *("pipeline.work", "pipeline.workspace"),
    },
    "pipeline.report": {
        *("pipeline.artefacts", "pipeline.claims", "pipeline.experts", "pipeline.labels"),
        *("pipeline.run", "pipeline.work", "pipeline.workspace"),
    },
    "table.cells": set(),
    "table.order": set(),
    "table.collecting": {"table.cells"},
    "table.layout": {"table.collecting"},
    "table.comma_separated": {"table.collecting"},
    "table.markdown": {"table.layout"},
    "table.latex": {"table.layout"},
    "table.page": {"table.layout"},
    "table.running": {
        *("table.cells", "table.collecting", "table.comma_separated", "table.latex"),
        *("table.layout", "table.markdown", "table.order", "table.page"),
    },
}
# Sections of the config stop at the pipeline: below it nobody knows what a config is.
CONFIG = {"budget", "config", "family_fields", "fields", "label_fields", "presets", "rules"}
CONFIG |= {"choices", "evaluation_fields", "method_budgets", "teacher_fields", "validation"}
PURE = {"data", "distill", "evaluate", "experts", "nets", "report", "runtime", "teachers"}
# Third-party packages that one module hides from all others.
HIDDEN = {
    "orbax": "runtime.checkpoint",
    "matplotlib": "report.figures",
    "tensorboardX": "runtime.events",
}
# What fits on a screen, and what one can hold in the head.
MAX_FUNCTION, MAX_CLASS, MAX_FILE = 70, 80, 400


def read_modules() -> dict[str, ast.Module]:
    """Name within the package -> syntax tree; a folder's __init__ is named like the folder."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        modules[name] = ast.parse(path.read_text(encoding="utf-8"))
    return modules


def find_imports(tree: ast.Module, names: set[str]) -> tuple[set[str], set[str]]:
    """Imports anywhere in a module, also inside functions.

    Returns:
      Modules of the package (relative to it, as deep as `names` knows them), and the first names
      of all other packages.
    """
    inside, outside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            first, _, rest = target.partition(".")
            if first != "ltdd_jax":
                outside.add(first)
                continue
            while rest and rest not in names:
                rest = rest.rpartition(".")[0]
            inside.add(rest)
    return inside - {""}, outside


def find_violations(module: str, imports: set[str]) -> list[str]:
    part = module.partition(".")[0]
    allowed = ALLOWED[part] | EXCEPTIONS.get(module, set()) | {part}
    return [f"{module} -> {name}" for name in imports if name.partition(".")[0] not in allowed]


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """A list of modules that import each other in turn, or an empty list."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node not in done:
            for following in sorted(graph.get(node, ())):
                cycle = visit(following, [*trail, node])
                if cycle:
                    return cycle
            done.add(node)
        return []

    for node in sorted(graph):
        cycle = visit(node, [])
        if cycle:
            return cycle
    return []


MODULES = read_modules()
IMPORTS = {name: find_imports(tree, set(MODULES)) for name, tree in MODULES.items()}


def test_every_part_has_a_place():
    parts = {name.partition(".")[0] for name in MODULES} - {""}
    assert parts <= set(ALLOWED), "say in ALLOWED what the new part may import"


def test_imports_follow_the_layers():
    violations = [
        v for name, (inside, _) in IMPORTS.items() if name for v in find_violations(name, inside)
    ]
    assert violations == []


def test_imports_have_no_cycle():
    assert find_cycle({name: inside for name, (inside, _) in IMPORTS.items()}) == []


def test_modules_of_a_folder_follow_their_order():
    """Breaks when the pipeline's rooms import each other at will."""
    rooms = {name for name in MODULES if name.startswith(("pipeline.", "table."))}
    assert rooms - {"table.__main__"} <= set(INSIDE)
    wrong = [
        f"{module} -> {name}"
        for module, allowed in INSIDE.items()
        for name in IMPORTS[module][0] - allowed
        if name.partition(".")[0] == module.partition(".")[0]
    ]
    assert wrong == []


def test_settings_stop_at_the_pipeline():
    """Breaks when a pure module reads a config instead of plain arguments."""
    for name, (inside, outside) in IMPORTS.items():
        if name.partition(".")[0] in PURE:
            assert not inside & CONFIG and "ml_collections" not in outside, name


def test_the_report_knows_no_files():
    """Breaks when the page reads a run by itself instead of being given what it shows."""
    for name, (_, outside) in IMPORTS.items():
        if name.startswith("report."):
            assert not outside & {"etils", "fsspec", "os", "pathlib", "jax"}, name


def find_long(name: str, text: str) -> list[str]:
    """Functions, classes and modules that are longer than they may be."""
    found = [f"{name}: {len(text.splitlines())}"] if len(text.splitlines()) > MAX_FILE else []
    limits = {ast.FunctionDef: MAX_FUNCTION, ast.AsyncFunctionDef: MAX_FUNCTION}
    limits[ast.ClassDef] = MAX_CLASS
    for node in ast.walk(ast.parse(text)):
        if type(node) in limits:
            lines = node.end_lineno - node.lineno + 1
            if lines > limits[type(node)]:
                found.append(f"{name}, {node.name}: {lines}")
    return found


def test_nothing_is_longer_than_a_reader_can_hold():
    """No function over a screen, no class over 80 lines, no file over 400; docstrings count."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        found += find_long(str(path.relative_to(PACKAGE)), path.read_text(encoding="utf-8"))
    assert found == []


def test_the_check_of_lengths_sees_all_three():
    body = "\n".join("    x = 1" for _ in range(MAX_FUNCTION))
    assert find_long("a", f"def f():\n{body}\n") == ["a, f: 71"]
    body = "\n".join("    x = 1" for _ in range(MAX_CLASS - 1))
    assert find_long("a", f"class C:\n{body}\n") == []
    assert find_long("a", f"class C:\n{body}\n    y = 1\n") == ["a, C: 81"]
    assert find_long("a", "x = 1\n" * (MAX_FILE + 1)) == ["a: 401"]


@pytest.mark.parametrize(("package", "owner"), HIDDEN.items())
def test_hidden_packages_are_imported_in_one_place(package, owner):
    assert {name for name, (_, outside) in IMPORTS.items() if package in outside} <= {owner}


def test_the_checks_themselves_see_violations():
    tree = ast.parse(
        "import jax.numpy as jnp\n"
        "from ltdd_jax import losses\n"
        "from ltdd_jax.types import UserError\n"
        "def f():\n"
        "    import ltdd_jax.pipeline\n"
    )
    inside, outside = find_imports(tree, {"losses", "types", "pipeline"})
    assert (inside, outside) == ({"losses", "types", "pipeline"}, {"jax"})
    assert find_violations("nets.convnet", {"types", "pipeline"}) == ["nets.convnet -> pipeline"]
    assert find_violations("experts.train", {"runtime.log"}) != []
    assert find_violations("experts.trajectory", {"runtime.checkpoint"}) == []
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []
