"""Every public name has an example in its docstring, and it is true."""

from __future__ import annotations

import ast
import doctest
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

import fsagn_onnx
from fsagn_onnx.testing.synthetic import render

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = [name for name in fsagn_onnx.__all__ if name != "__version__"]
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its explainer and four pictures: what the examples are about."""
    made = tmp_path_factory.mktemp("examples")
    shutil.copy(ROOT / "models" / "demo_cnn.onnx", made / "model.onnx")
    shutil.copy(ROOT / "models" / "demo_explainer.onnx", made / "explainer.onnx")
    (made / "photos").mkdir()
    for seed in range(4):
        cv2.imwrite(str(made / "photos" / f"{seed}.png"), render(seed).image[..., ::-1])
    return made


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_is_true(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    thing = getattr(fsagn_onnx, name)
    known = {public: getattr(fsagn_onnx, public) for public in PUBLIC}
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", known, name, None, None)
    assert example.examples, f"{name} has no example in its docstring"
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)


DEFECTS = {"AssertionError", "AttributeError", "NotImplementedError"}
"""What no caller is meant to catch."""


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of what a function raises itself."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Raise) and child.exc is not None:
                yield ast.unparse(child.exc).partition("(")[0]
            if not isinstance(child, ast.FunctionDef | ast.Lambda):
                yield from visit(child)

    return set(visit(function)) - DEFECTS


def silent(body: list[ast.stmt], owner: str) -> Iterator[str]:
    """Public functions that raise and do not say so; that of a class says it for its ``__init__``."""
    for node in body:
        name = getattr(node, "name", "_")
        says = isinstance(node, ast.ClassDef | ast.FunctionDef) and "Raises:" in (ast.get_docstring(node) or "")
        if isinstance(node, ast.ClassDef) and not name.startswith("_"):
            yield from (item for item in silent(node.body, name) if not (says and item.endswith("__init__")))
        public = name == "__init__" or not name.startswith("_")
        if isinstance(node, ast.FunctionDef) and public and raised(node) and not says:
            yield f"{owner}.{name}"


def test_what_raises_says_so() -> None:
    found = [
        name
        for path in sorted((ROOT / "fsagn_onnx").rglob("*.py"))
        for name in silent(ast.parse(path.read_text(encoding="utf-8")).body, str(path.relative_to(ROOT)))
    ]
    assert not found, "raise without a section 'Raises' in the docstring:\n" + "\n".join(found)
