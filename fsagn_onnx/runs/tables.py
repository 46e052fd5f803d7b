"""Tables of a run as CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.files import PART, write_file


def finite(value: float, digits: int = 5) -> float | None:
    """A number for JSON: None for NaN and infinities."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV; texts that a spreadsheet would run as a formula get an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([[_harmless(value) for value in row] for row in rows])
    return text.getvalue()


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def save_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a Parquet file, whole or not at all.

    Args:
        path: the file.
        columns: name -> lists or Arrow arrays, all equally long.

    Raises:
        OutputError: it cannot be written.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    temporary = path.with_name(f".{path.name}{PART}")
    try:
        parquet.write_table(arrow.table(dict(columns)), temporary)
        write_file(path, [temporary.read_bytes()])
    finally:
        temporary.unlink(missing_ok=True)
