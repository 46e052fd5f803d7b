"""Registries that fill themselves: what lies in a package's folder registers itself when it is imported."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules


def import_all(package: str) -> None:
    """Import every module that lies in a package's folder, in the order of their names.

    Args:
        package: dotted name of the package.
    """
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
