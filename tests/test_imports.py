"""Breaks when a module imports against the direction of the layers, or in a circle.

main → pipeline → {experts, distill, evaluate} → training → {data, nets, losses} → types
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
    "nets": {"losses", *_LEAVES},
    "data": _LEAVES,
    "training": _BASE,
    "experts": _STAGE,
    "distill": _STAGE,
    "evaluate": _STAGE,
    "runtime": _LEAVES,
    "records": set(),
    "validation": _LEAVES,
    "config": {"validation", "records", *_LEAVES},
    "command_line": {"config", "validation", "records", *_LEAVES},
    "pipeline": {"config", "records", "experts", "distill", "evaluate", "runtime", *_STAGE},
    "main": {"pipeline", "command_line", "config", *_LEAVES},
}
# Single modules with one more liberty, and why.
EXCEPTIONS = {
    "experts.trajectory": {"runtime", "records"},  # writes checkpoints
}
# Third-party packages that one module hides from all others.
HIDDEN = {"orbax": "runtime.checkpoint"}


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
    assert find_violations("nets.convnet", inside) == ["nets.convnet -> pipeline"]
    assert find_violations("experts.train", {"runtime.log"}) != []
    assert find_violations("experts.trajectory", {"runtime.checkpoint"}) == []
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []
