"""The results of `explain` as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..data.files import read_lines
from ..runs.manifest import MANIFEST, listed
from .folder import REPORT, ExplanationFolder


def json_pieces(folder: ExplanationFolder) -> Iterator[str]:
    """One JSON document: where the results are, counts, failures, and every line of explanations.jsonl."""
    head: dict[str, Any] = {
        "out": str(folder.path),
        "manifest": str(folder.path / MANIFEST),
        "report": str(folder.path / REPORT),
        "provider": folder.about.provider,
        "counts": {"explained": folder.explained, "failed": folder.failed},
        "failures": listed(folder.failures),
    }
    yield json.dumps(head)[:-1] + ', "images": ['
    for number, line in enumerate(read_lines(folder.index_path)):
        yield ("," if number else "") + "\n" + line.decode("ascii").rstrip("\n")
    yield "\n]}\n"
