"""Names that users give to filters: typed once, kept in every later run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..data.annotations.untrusted import read_json, read_rows
from ..errors import AnnotationError
from ..runs.column_folder import NAMES_FILE

__all__ = ["NAMES_FILE", "read_filter_names"]

MAX_DIGITS: Final = 9


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
