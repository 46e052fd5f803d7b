"""What `perturb` says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..perturbation.perturbation import Perturbation
from ..runtime.drawing.typeface import printable


def perturbation_json(result: Perturbation) -> str:
    """One JSON document: rankings, agreement and where the table is."""
    members = {
        "out": str(result.folder),
        "layer": result.layer,
        "images": result.images,
        "accuracy": result.accuracy,
        "cells": len(result.effects),
        "parts": result.parts,
        "filters": result.filters,
        "summary": result.summary,
    }
    return json.dumps(members, allow_nan=False)


def perturbation_lines(result: Perturbation) -> Iterator[str]:
    """Per class, what the model leans on, and where everything is."""
    accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.3f}"
    yield f"layer {result.layer}: {result.images} images{accuracy}"
    yield "drop of the class's score, inside minus area-matched control, mean over disturbances and strengths:"
    ranked = result.parts or result.filters
    for label, rows in ranked.items():
        yield f"  {printable(label)}"
        for row in rows[:3]:
            low, high = row["interval"]
            weak = ", ".join(f"{kind} {level}" for kind, level in sorted(row["smallest"].items(), key=lambda i: i[1]))
            fragile = f"  half of the decisions flip at {weak}" if weak else ""
            interval = f"{row['effect']:+.3f} [{low:+.3f}, {high:+.3f}]"
            yield f"    {_region(result, row):<24} {interval}  q {row['q']:.3f}{fragile}"
    for label, figures in result.summary["agreement"].items():
        if label == "all":
            yield (
                f"switching filters off agrees with disturbing their areas: Spearman {figures['correlation']:.2f} "
                f"over {figures['filters']} filters"
            )
    yield f"table     {result.folder / 'effects.csv'}"
    yield f"report    {result.folder / 'report.html'}"


def _region(result: Perturbation, row: dict[str, Any]) -> str:
    if isinstance(row["region"], str):
        return printable(row["region"])
    name = result.names.get(row["region"])
    return f"filter {row['region']}" + (f" ({printable(name)})" if name else "")
