"""The shape of the house: imports go down, in no circle, and private names stay in their folder."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import otdist
import otdist_vae

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "otdist").rglob("*.py"), *(ROOT / "otdist_vae").rglob("*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path) -> list[tuple[str, str]]:
    """Every ``from module import name`` of the project's own, anywhere in a file, with the module's whole name."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(module, alias.name) for alias in node.names if module.split(".")[0] in ("otdist", "otdist_vae")]
    return found


def edges(path: Path) -> set[str]:
    """The project's modules that a file imports."""
    own = module_name(path)
    named = {f"{module}.{name}" if f"{module}.{name}" in MODULES else module for module, name in imports(path)}
    return {name for name in named if name in MODULES and name != own}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_private_names_stay_in_their_folder(path):
    for module, name in imports(path):
        source = MODULES.get(module)
        crosses = source is not None and source.parent != path.parent
        assert not (crosses and name.startswith("_") and f"{module}.{name}" not in MODULES), f"{name} of {module}"


def test_no_import_runs_in_a_circle():
    # A package's __init__ hands names up to its users; within its folder, files may not import it back.
    graph = {name: edges(path) for name, path in MODULES.items()}
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in finished:
            for other in graph[name]:
                visit(other, (*above, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", [p for p in FILES if "_core" in p.parts], ids=module_name)
def test_the_core_imports_no_distance(path):
    assert all(name.startswith("otdist._core") for name in edges(path))


PUBLIC = sorted(
    {
        *(f"{package.__name__}.{name}" for package in (otdist, otdist_vae) for name in package.__all__),
        *("otdist", "otdist.distributions", "otdist.padding", "otdist.startup", "otdist_vae", "otdist_vae.model"),
    }
    & MODULES.keys()
)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_lists_what_is_public_and_nothing_else(name):
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        found = getattr(module, public)
        assert not public.startswith("_")
        assert getattr(found, "__doc__", None), f"{public} has no docstring"
