"""Methods by name, as the files of this folder declare them; a method's file is imported when it is asked for.

A file declares ``METHODS``: name -> what makes the method of (model, layer); and ``NEEDS``: package -> what to do where
it is not installed. Both are read from the file's text, so that a list of methods imports neither torch nor captum.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from ..errors import UsageError
from ..model import Model
from .interface import Method


@dataclass(frozen=True)
class MethodEntry:
    """Where a method is made, and the packages that it needs: name -> advice."""

    module: str
    maker: str
    needs: Mapping[str, str]

    def make(self, model: Model, layer: str) -> Method:
        """Import its file and make it."""
        maker: Callable[[Model, str], Method] = getattr(import_module(f".{self.module}", __package__), self.maker)
        return maker(model, layer)


def _declared(path: Path) -> dict[str, MethodEntry]:
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""
        if isinstance(node, ast.AnnAssign) and node.value is not None and name in ("METHODS", "NEEDS"):
            found[name] = ast.literal_eval(node.value)
    needs = found.get("NEEDS", {})
    return {name: MethodEntry(path.stem, maker, needs) for name, maker in found.get("METHODS", {}).items()}


METHODS: Final[Mapping[str, MethodEntry]] = {
    name: entry
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if path.name != Path(__file__).name
    for name, entry in _declared(path).items()
}
"""Methods by name."""


def make_method(name: str, model: Model, layer: str) -> Method:
    """A method for a layer of a model.

    Args:
        name: of `METHODS`.
        model: the CNN.
        layer: value name.

    Raises:
        UsageError: no such method, or it needs what is not installed.
    """
    if name not in METHODS:
        raise UsageError(f"no method {name!r}; there are {', '.join(METHODS)}")
    for package, advice in METHODS[name].needs.items():
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"method '{name}' needs {package}: {advice}")
    return METHODS[name].make(model, layer)
