"""What is wrong with the installed onnxruntime, and how to mend it; the standard library only."""

from __future__ import annotations

from importlib.metadata import distributions
from types import ModuleType
from typing import Final

PACKAGE: Final = "onnxruntime"
KINDS: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")
"""Packages that all put their files into the one folder `onnxruntime`."""


def installed_kinds() -> tuple[str, ...]:
    """The onnxruntime packages that are installed; more than one overwrite each other's files."""
    names = {str(found.metadata["Name"]).lower().replace("_", "-") for found in distributions()}
    return tuple(kind for kind in KINDS if kind in names)


def mending(kinds: tuple[str, ...]) -> str:
    """The two commands that leave one whole onnxruntime: the kind that is installed, that of the GPU before others."""
    wanted = next((kind for kind in kinds if kind != PACKAGE), PACKAGE)
    remove = f"pip uninstall -y {' '.join(kinds or (PACKAGE,))}"
    return f"{remove}, then pip install --force-reinstall {wanted}"


def broken_runtime(error: ImportError | AttributeError) -> str | None:
    """The one line for an onnxruntime that cannot be imported or is not whole; None where it is not the reason."""
    owner = getattr(error, "obj", None)
    name = error.name if isinstance(error, ImportError) else owner.__name__ if isinstance(owner, ModuleType) else None
    if (name or "").partition(".")[0] != PACKAGE:
        return None
    kinds = installed_kinds()
    reason = " ".join(str(error).split())[:300]
    if len(kinds) > 1:
        what = f"{' and '.join(kinds)} are installed together and overwrite each other's files"
    else:
        what = f"{kinds[0]} is installed, but its files are not whole" if kinds else "onnxruntime is not installed"
    return f"{what} ({reason}): {mending(kinds)}"
