"""A file that the zoo makes in a way of its own: another framework's export, or a detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Made:
    """How one such file is made, and the changes to check it with ("" for as it is)."""

    name: str
    family: str
    exporter: str
    write: Callable[[Path], None]
    changes: tuple[str, ...] = ("",)
    outputs: bool = True
