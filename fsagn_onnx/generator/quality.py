"""What `evaluate` measured, in the form in which an explainer carries it in its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UsageError

LIMIT = 16 * 2**20
"""Largest file in bytes that is read."""


def read_quality(path: Path) -> dict[str, Any]:
    """Figures of `evaluation.json`, the document that ``evaluate --out DIR`` writes.

    Returns:
        ``images``, ``pairs``, ``filters`` per image, ``areas``, and ``figures``: method -> metric -> infill ->
        ``[mean, low, high]`` (95 % bootstrap interval over images; infill ``""`` where the metric masks nothing).

    Raises:
        UsageError: the file cannot be read or is no such document.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for its writer
            raise UsageError(f"{path} is no regular file, expected the evaluation.json of 'evaluate --out'")
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path}: expected the evaluation.json of 'evaluate --out', but it has over {LIMIT} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        figures: dict[str, dict[str, dict[str, list[float]]]] = {}
        for row in document["rows"]:
            value = [row["value"][name] for name in ("mean", "low", "high")]
            if None not in value:
                metrics = figures.setdefault(str(row["method"]), {})
                metrics.setdefault(str(row["metric"]), {})[row["infill"] or ""] = [round(float(x), 4) for x in value]
        measured = {name: document[name] for name in ("images", "pairs", "filters", "areas")}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: expected the evaluation.json of 'evaluate --out', but got: {error!r}") from error
    return {**measured, "figures": figures}
