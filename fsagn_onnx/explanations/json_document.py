"""The results of `explain` as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data.files import read_lines
from .folder import LINES, MANIFEST, REPORT, ResultFolder


def json_pieces(folder: ResultFolder) -> Iterator[str]:
    """One JSON document: where the results are, counts, failures, and every line of explanations.jsonl."""
    head: dict[str, Any] = {
        "out": str(folder.folder),
        "manifest": str(folder.folder / MANIFEST),
        "report": str(folder.folder / REPORT),
        "provider": folder.about.provider,
        "counts": {"explained": folder.explained, "failed": folder.failed},
        "failures": [{"path": failure.path, "message": failure.message} for failure in folder.failures],
    }
    yield json.dumps(head)[:-1] + ', "images": ['
    for number, line in enumerate(read_lines(Path(folder.folder) / LINES)):
        yield ("," if number else "") + "\n" + line.decode("ascii").rstrip("\n")
    yield "\n]}\n"
