"""The order of the package: every module imports only its own layer and those before it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import pyconv_search

PACKAGE = Path(pyconv_search.__file__).parent
LAYERS = ["arch", "space", "study", "results", "report", "ops", "models", "training", "search", "cluster", "cli"]
SHARED = {"errors", "fields", "files", "cores", "units", ""}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "ray"}


def dotted(path: Path) -> str:
    """The name of the module in this file, from the root of the package: ``arch.cost``, or empty for the root."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[tuple[str, str]]:
    """Every imported module with the imported name, wherever in the file the import stands."""
    found = []
    base = dotted(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["pyconv_search", *base[: len(base) - node.level + 1]] if node.level else []
            module = ".".join(part for part in (*above, node.module or "") if part)
            found += [(module, alias.name) for alias in node.names]
    return found


def layer_of(module: str, name: str) -> str | None:
    """The layer that an import reaches, an empty text for the package itself, None for other packages."""
    parts = module.split(".")
    if parts[0] != "pyconv_search":
        return None
    return parts[1] if len(parts) > 1 else name if (PACKAGE / name).is_dir() or name in LAYERS else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: dotted(path) or "pyconv_search")
def test_imports_go_one_way(path):
    own = dotted(path).split(".")[0]
    if own in {"", "__main__"}:
        return
    assert own in {*SHARED, *LAYERS}, f"{own} has no place in the order of layers"
    allowed = SHARED if own in SHARED else {*SHARED, *LAYERS[: LAYERS.index(own) + 1]}
    reached = {layer_of(*one) for one in imports(path)} - {None}
    assert reached <= allowed, f"{dotted(path)} imports {sorted(reached - allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: dotted(path) or "pyconv_search")
def test_private_names_stay_in_their_module(path):
    private = [
        (module, name)
        for module, name in imports(path)
        if module.startswith("pyconv_search") and name.startswith("_") and not name.startswith("__")
    ]
    assert private == []


def test_every_folder_of_the_package_has_its_place_in_the_order():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(LAYERS)


@pytest.mark.parametrize("name", ["arch.cost", "arch.presets", "space", "study", "results", "report"])
def test_loads_without_torch_and_ray(name):
    module = f"pyconv_search.{name}"
    if importlib.util.find_spec(module) is None:
        pytest.fail(f"{module} is missing")
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
