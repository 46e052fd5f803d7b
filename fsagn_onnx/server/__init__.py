"""An explainer file behind HTTP: the KServe v2 inference protocol, batching, limits, metrics (extra `serve`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import make_app as make_app
    from .process import serve as serve
    from .settings import Settings as Settings

_WHERE = {"Settings": ".settings", "make_app": ".app", "serve": ".process"}

__all__ = ["Settings", "make_app", "serve"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: writing a Triton repository needs no server library."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name], __name__), name)
