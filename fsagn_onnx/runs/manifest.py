"""The manifest of a run: what was measured with what. A run goes on only with the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from .. import __version__
from ..errors import OutputError
from ..runtime.stream import Failure

MANIFEST: Final = "manifest.json"
EVALUATION: Final = "run.json"
"""What the manifest of an evaluation is called; it holds the arguments only."""
KINDS: Final = ("explain", "dissect", "perturb")
"""Runs whose manifests say how far they got, and that can be compared."""
MAX_FAILURES: Final = 1000
"""Failures listed in a manifest; all are counted."""


def manifest_file(folder: Path, kind: str | None = None) -> Path:
    """Where the manifest of a kind of run lies."""
    return folder / (EVALUATION if kind == "evaluate" else MANIFEST)


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        folder: the run's folder.
        kind: the command that is expected; None takes any of `KINDS`.

    Raises:
        OutputError: no manifest, or of another kind.
    """
    try:
        manifest = json.loads(manifest_file(folder, kind).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = None
    found = _kind(manifest) if isinstance(manifest, dict) else None
    if found is None or (kind is not None and kind != found):
        raise OutputError(f"{folder} holds no results of '{kind or ', '.join(KINDS)}': choose another folder")
    return {"kind": found, **manifest}


def _kind(manifest: Mapping[str, Any]) -> str | None:
    """Manifests of explain and evaluate do not say their kind."""
    if "kind" in manifest:
        return str(manifest["kind"])
    return "explain" if "arguments" in manifest else "evaluate" if "methods" in manifest else None


def require_same(folder: Path, written: Mapping[str, Any], subject: Mapping[str, Any]) -> None:
    """Compare what a folder was written with, and what is asked for now.

    Raises:
        OutputError: naming the first member that differs, with both values.
    """
    for name, value in json.loads(json.dumps(subject)).items():
        if written.get(name) != value:
            raise OutputError(
                f"{folder} was written with {name} {brief(written.get(name))}, but now it is {brief(value)}: repeat "
                "the same arguments, replace the results with --overwrite, or choose another --out"
            )


def brief(value: object) -> str:
    """A JSON value for a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def versions(**more: str) -> dict[str, str]:
    """What computed the figures of a run."""
    return {
        "fsagn-onnx": __version__,
        "onnxruntime": onnxruntime.__version__,
        **more,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def listed(failures: Iterable[Failure]) -> list[dict[str, str]]:
    """Failures as a manifest lists them."""
    return [{"path": failure.path, "message": failure.message} for failure in failures][:MAX_FAILURES]
