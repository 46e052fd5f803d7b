"""Imports point one way, the runtime never meets torch, and `import fsagn_onnx` imports next to nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A package may import packages of a lower rank, and itself.
RANK = {
    "errors": 0,
    "discovery": 0,
    "schema": 0,
    "installation": 0,
    "model": 1,
    "statistics": 1,
    "data": 2,
    "gradient": 2,
    "conversion": 3,
    "runtime": 3,
    "generator": 4,
    "report": 4,
    "methods": 5,
    "runs": 5,
    "testing": 5,
    "evaluation": 6,
    "explanations": 6,
    "inspection": 6,
    "dissection": 6,
    "server": 6,
    "benchmark": 6,
    "perturbation": 7,
    "comparison": 8,
    "scale": 8,
    "terminal": 9,
    "models": 10,
    "cli": 11,
}
NO_TORCH = (
    "errors", "schema", "model", "data", "gradient", "statistics", "runtime", "runs", "evaluation", "explanations",
    "inspection", "report", "terminal", "server", "benchmark", "cli", "models", "scale",
)  # fmt: skip
ALSO = {("schema", "errors")}
TORCH_FREE_EXCEPT = re.compile(r"fsagn_onnx\.testing\b|fsagn_onnx\.models\.train_")
HEAVY = ("torch", "onnx2torch", "torchvision", "safetensors")


def modules() -> dict[str, Path]:
    """Dotted name, as installed -> file, of every module of the package."""
    found = {}
    for folder, prefix in (
        ("fsagn_onnx", "fsagn_onnx"),
        ("cli", "fsagn_onnx.cli"),
        ("models", "fsagn_onnx.models"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT / folder).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join([prefix, *parts])] = path
    return found


MODULES = modules()


def package_of(module: str) -> str:
    """`fsagn_onnx.runtime.masks` -> `runtime`; `fsagn_onnx` itself -> ``."""
    return module.split(".")[1] if "." in module else ""


def imported(module: str) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import, in functions too, except those for type checking."""
    path = MODULES[module]
    base = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[tuple[int, str]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = base.rsplit(".", node.level - 1)[0] if node.level > 1 else base
            source = ".".join(filter(None, [start if node.level else "", node.module or ""]))
            found.extend((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if name != "fsagn_onnx"])
def test_imports_point_one_way(module: str) -> None:
    own = package_of(module)
    assert own in RANK, f"{module}: give the package '{own}' a rank"
    wrong = []
    for line, name in imported(module):
        other = package_of(name) if name.startswith("fsagn_onnx.") else ""
        if other in RANK and other != own and RANK[other] >= RANK[own] and (own, other) not in ALSO:
            wrong.append(f"{MODULES[module].relative_to(ROOT)}:{line}: {own} must not import {other} ({name})")
    assert not wrong, "\n".join(wrong)


def test_no_imports_go_in_a_circle() -> None:
    """Nor in functions: an import put there to break a circle only hides it."""
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        names = [name for _, name in imported(module)]
        sources = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        edges[module] = {source for source in sources if source in MODULES and source != module}
    while leaves := {module for module, targets in edges.items() if not targets & edges.keys()}:
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
    circles = sorted(f"{module} -> {', '.join(sorted(targets & edges.keys()))}" for module, targets in edges.items())
    assert not circles, "\n".join(circles)


def test_only_convert_imports_onnx2torch() -> None:
    wrong = [
        module
        for module in MODULES
        if package_of(module) != "conversion"
        and any(name.partition(".")[0] == "onnx2torch" for _, name in imported(module))
    ]
    assert not wrong, f"onnx2torch belongs to conversion/ alone, but is imported by {wrong}"


def test_inside_the_package_imports_are_relative() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        if package_of(module) not in ("cli", "models")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("fsagn_onnx"))
        or (isinstance(node, ast.Import) and any(a.name.startswith("fsagn_onnx") for a in node.names))
    ]
    assert not wrong, f"absolute imports of the package inside it: {wrong}"


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def torch_free_modules() -> list[str]:
    return [name for name in MODULES if package_of(name) in NO_TORCH and not TORCH_FREE_EXCEPT.match(name)]


BLOCKER = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_runtime_packages_import_where_torch_does_not_exist() -> None:
    python(f"{BLOCKER}\nfor name in {torch_free_modules()!r}: importlib.import_module(name)")


def test_runtime_packages_do_not_import_torch_where_it_exists() -> None:
    code = f"""
import importlib, sys
for name in {torch_free_modules()!r}:
    importlib.import_module(name)
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    assert python(code).strip() == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import sys
before = set(sys.modules)
import fsagn_onnx
dir(fsagn_onnx)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    assert python(code).split() == ["fsagn_onnx"]


def test_help_and_version_import_click_only() -> None:
    code = """
import sys
before = set(sys.modules)
from fsagn_onnx.cli.main import run
for arguments in (["--help"], ["--version"], ["completion", "bash"]):
    assert run(arguments) == 0
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print("|", *sorted(names - set(sys.stdlib_module_names)))
"""
    imported_packages = set(python(code).rpartition("|")[2].split())
    assert imported_packages <= {"click", "fsagn_onnx", "colorama"}


def test_public_names() -> None:
    import fsagn_onnx

    assert set(fsagn_onnx.__all__) <= set(dir(fsagn_onnx))
    for name in fsagn_onnx.__all__:
        assert getattr(fsagn_onnx, name) is not None
    for name in ("load_model", "train", "Explainer", "evaluate", "dissect", "perturb", "compare", "FsagnError"):
        assert callable(getattr(fsagn_onnx, name)), name
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = fsagn_onnx.no_such_name
