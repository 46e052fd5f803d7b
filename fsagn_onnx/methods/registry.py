"""Methods by name, as the files of this folder declare them; a method's file is imported when it is asked for.

A file declares ``METHODS`` (of filters) or ``CLASS_METHODS`` (of decisions): name -> what makes the method of (model,
layer); and ``NEEDS``: package -> what to do where it is not installed. They are read from the file's text, so that a
list of methods imports neither torch nor captum.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..model import Model
from .class_interface import ClassMethod
from .interface import Method


@dataclass(frozen=True)
class MethodEntry:
    """Where a method is made, and the packages that it needs: name -> advice."""

    module: str
    maker: str
    needs: Mapping[str, str]

    def make(self, model: Model, layer: str) -> Any:
        """Import its file and make it."""
        maker: Callable[[Model, str], Any] = getattr(import_module(f".{self.module}", __package__), self.maker)
        return maker(model, layer)


def _declared(path: Path, kind: str) -> dict[str, MethodEntry]:
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""
        if isinstance(node, ast.AnnAssign) and node.value is not None and name in (kind, "NEEDS"):
            found[name] = ast.literal_eval(node.value)
    needs = found.get("NEEDS", {})
    return {name: MethodEntry(path.stem, maker, needs) for name, maker in found.get(kind, {}).items()}


def _all(kind: str) -> Mapping[str, MethodEntry]:
    paths = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name != Path(__file__).name)
    return {name: entry for path in paths for name, entry in _declared(path, kind).items()}


METHODS: Final[Mapping[str, MethodEntry]] = _all("METHODS")
"""Methods by name."""
CLASS_METHODS: Final[Mapping[str, MethodEntry]] = _all("CLASS_METHODS")
"""Methods that explain decisions, by name."""


def make_method(name: str, model: Model, layer: str) -> Method:
    """A method for a layer of a model.

    Args:
        name: of `METHODS`.
        model: the CNN.
        layer: value name.

    Raises:
        UsageError: no such method, or it needs what is not installed.
    """
    method: Method = _entry(name, METHODS, "method").make(model, layer)
    return method


def make_class_method(name: str, model: Model, layer: str) -> ClassMethod:
    """A method that explains decisions.

    Args:
        name: of `CLASS_METHODS`; ``NAME@LAYER`` reads it at another layer.
        model: the CNN.
        layer: value name, where the name says none.

    Raises:
        LayerError: no such layer.
        UsageError: no such method, it needs what is not installed, or the model does not classify.
    """
    kind, _, told = name.partition("@")
    entry = _entry(kind, CLASS_METHODS, "class method")
    for value in told.split("+") if told and told not in model.shapes else [told or layer]:
        model.layer(value)
    method: ClassMethod = entry.make(model, told or layer)
    return method


def _entry(name: str, known: Mapping[str, MethodEntry], called: str) -> MethodEntry:
    if name not in known:
        raise UsageError(f"no {called} {name!r}; there are {', '.join(known)}")
    for package, advice in known[name].needs.items():
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{called} '{name}' needs {package}: {advice}")
    return known[name]
