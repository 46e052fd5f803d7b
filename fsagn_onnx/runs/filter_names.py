"""Names that users give to filters: typed once, kept in every later run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ..data.annotations.untrusted import read_json, read_rows
from ..errors import AnnotationError, OutputError
from .column_folder import NAMES_FILE
from .reader import FinishedRun

__all__ = ["NAMES_FILE", "found_filter_names", "read_filter_names"]

MAX_DIGITS: Final = 9


class NamedFilter(msgspec.Struct):
    """What is read of a line of a dissection's filters.jsonl."""

    filter: int
    name: str | None = None
    part: str | None = None


def found_filter_names(path: Path, layer: str, content: str) -> dict[int, str]:
    """Filter -> what it is called: the names of a file, or the parts that a run of `dissect` found (and its names).

    Args:
        path: a file as for `read_filter_names`, or the folder of a finished run of `dissect`.
        layer: the layer whose filters are called so.
        content: content hash of the model.

    Raises:
        AnnotationError: the file has another form.
        OutputError: the folder holds no finished run of `dissect`, or one of another layer or model.
    """
    if not path.is_dir():
        return read_filter_names(path, path.parent)
    run = FinishedRun(path, "dissect")
    if run.manifest.get("layer") != layer:
        raise OutputError(f"{path} dissects layer '{run.manifest.get('layer')}', but '{layer}' is explained")
    made_for = run.manifest.get("content") or run.manifest.get("model_sha256") or content
    if made_for != content:
        raise OutputError(f"{path} dissects another model ({str(made_for)[:12]}) than this one ({content[:12]})")
    names = {}
    for row in run.lines("filters.jsonl", NamedFilter):
        if name := row.get("name") or row.get("part"):
            names[int(row["filter"])] = name
    return names


def read_filter_names(path: Path | None, out: Path) -> dict[int, str]:
    """Filter -> name, from a file or, where none is given, from ``names.json`` in the folder of results.

    Args:
        path: JSON object ``{"17": "headlight"}`` or CSV with the columns filter and name; or None.
        out: the folder of results.

    Raises:
        AnnotationError: the file has another form.
    """
    if path is None:
        path = out / NAMES_FILE
        if not path.is_file():
            return {}
    if path.suffix.lower() == ".csv":
        listed = {row["filter"]: row["name"] for _, row in read_rows(path, ("filter", "name"))}
    else:
        listed = read_json(path)
    if not isinstance(listed, dict):
        raise AnnotationError(f"{path}: expected an object from filter numbers to names")
    names = {}
    for number, name in listed.items():
        whole = str(number).isascii() and str(number).isdigit() and len(str(number)) <= MAX_DIGITS
        if not whole or not isinstance(name, str):
            raise AnnotationError(f"{path}: expected filter numbers with names, but got {number!r}: {name!r}"[:200])
        if name:
            names[int(number)] = name
    return names
