"""The manifest of a run: what was measured with what. A run goes on only with the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import onnxruntime

from .. import __version__
from ..data.files import read_lines
from ..data.opening import open_regular
from ..errors import OutputError
from ..model.input_spec import MAX_SIDE
from ..runtime.stream import Failure
from ..runtime.variant import MOST_FILTERS
from ..schema import Meta, Text, checked, one_of, parse_json, within

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


class Manifest(msgspec.Struct):
    """What a manifest may hold that a later run reads; it may hold more.

    Attributes:
        kind: the command that wrote it; manifests of explain and evaluate do not say it.
        state: how far the run got; evaluate does not say it.
        content: of the model, see `Model.content`; it was called ``model_sha256``, and ``model`` by evaluate.
        sha256: of the opened file; it was called ``file_sha256``.
    """

    kind: Text = ""
    state: Annotated[str, one_of(("running", "done"))] = "done"
    content: Text = ""
    sha256: Text = ""
    layer: Text = ""
    filters_of_layer: Annotated[int, within(1, MOST_FILTERS)] = 1
    arguments: dict[str, Any] = {}
    methods: list[Text] = []
    parts: list[Text] | Text | None = None
    disturbances: list[Text] = []
    area: Annotated[float, Meta(gt=0, le=1, description="a number in (0, 1]")] = 1.0
    grid: tuple[Annotated[int, within(1, MAX_SIDE)], Annotated[int, within(1, MAX_SIDE)]] = (1, 1)
    images: Annotated[int, Meta(ge=0)] | Text = 0
    annotated: Annotated[int, Meta(ge=0)] = 0
    summary: dict[str, Any] = {}


RUNNING: Final = {
    "explain": ("arguments", "layer", "filters_of_layer"),
    "dissect": ("layer", "area", "parts"),
    "perturb": ("layer", "area", "parts", "disturbances"),
    "evaluate": ("methods", "layer"),
}
"""Members that the manifest of each kind of run has from its start on."""
DONE: Final = {"dissect": ("images", "annotated", "summary", "grid"), "perturb": ("images",)}
"""Members that it has at the end, besides."""


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of a run, checked, and spelled as today.

    Args:
        folder: the run's folder.
        kind: the command that is expected; None takes any of `KINDS`.

    Raises:
        OutputError: no manifest, one of another kind, or a damaged one.
    """
    path = manifest_file(folder, kind)
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError:
        content = b""
    return parsed_manifest(content, folder, path, kind)


def parsed_manifest(content: bytes, folder: object, path: object, kind: str | None = None) -> dict[str, Any]:
    """`read_manifest` of the file's content; ``folder`` and ``path`` are what to call folder and file.

    Raises:
        OutputError: likewise.
    """
    other = OutputError(f"{folder} holds no results of '{kind or ', '.join(KINDS)}': choose another folder")
    manifest = parse_json(content, lambda said: other, any_names=True)
    found = _kind(manifest) if isinstance(manifest, dict) else None
    if found is None or found not in RUNNING or (kind is not None and kind != found):
        raise other

    def wrong(said: str) -> OutputError:
        return OutputError(f"{path} is damaged: {said}; remove the folder, or choose another")

    renamed = {"model_sha256": "content", "file_sha256": "sha256"}
    if found == "evaluate":
        renamed["model"] = "content"
    manifest = {renamed.get(name, name): value for name, value in manifest.items()}
    state = checked(manifest, Manifest, wrong).state
    needed = (*RUNNING[found], *(DONE.get(found, ()) if state == "done" else ()))
    if missing := [name for name in needed if name not in manifest]:
        raise wrong(f"field '{missing[0]}' is missing")
    return {"kind": found, **manifest}


class IndexLine(msgspec.Struct):
    """What every line of an index holds, besides figures; one of an image that failed says why."""

    path: str
    name: str = ""
    label: str | int | None = None
    predicted: int | None = None
    annotated: bool = False
    error: str | None = None
    failed: str | None = None


def index_lines(path: Path, kind: type[Any] = IndexLine) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines of an index, as they are and read.

    Args:
        path: the file.
        kind: the schema of a line.

    Raises:
        OutputError: a line is damaged.
    """
    for number, line in enumerate(read_lines(path), start=1):

        def wrong(said: str, number: int = number) -> OutputError:
            return OutputError(f"{path} is damaged in line {number}: {said}; start again with --overwrite")

        members = parse_json(line, wrong, any_names=True)
        checked(members, kind, wrong)
        yield line, members


def _kind(manifest: Mapping[str, Any]) -> str | None:
    """Manifests of explain and evaluate do not say their kind."""
    if "kind" in manifest:
        return str(manifest["kind"])
    return "explain" if "arguments" in manifest else "evaluate" if "methods" in manifest else None


def require_same(folder: object, written: Mapping[str, Any], subject: Mapping[str, Any]) -> None:
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
