"""What `dissect` says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ..runtime.typeface import printable
from .compare import Comparison
from .perturbation import Perturbation
from .table import Dissection, FilterRow

MOST_ROWS: Final = 20


def dissection_json(dissection: Dissection) -> str:
    """One JSON document: summary and all filters."""
    members = {
        "out": str(dissection.folder),
        "layer": dissection.layer,
        "images": dissection.images,
        "annotated": dissection.annotated,
        "parts": list(dissection.parts),
        "summary": dissection.summary,
        "filters": [row.to_dict() for row in dissection.filters],
    }
    return json.dumps(members, allow_nan=False)


def dissection_lines(dissection: Dissection) -> Iterator[str]:
    """A short table and where everything is."""
    yield f"layer {dissection.layer}: {len(dissection.filters)} filters, {dissection.images} images"
    if dissection.parts:
        yield from _parts(dissection)
    else:
        yield f"{dissection.summary['groups']} groups of filters (no --parts: name them by eye in the report)"
        for number in range(dissection.summary["groups"]):
            members = [row for row in dissection.filters if row.group == number]
            listed = ", ".join(_called(row) for row in members[:12])
            yield f"  group {number}: {listed}" + (f", ... {len(members) - 12} more" if len(members) > 12 else "")
    yield f"table     {dissection.folder / 'filters.csv'}"
    yield f"masks     {dissection.folder / 'masks.json'}"
    yield f"report    {dissection.folder / 'report.html'}"


def _parts(dissection: Dissection) -> Iterator[str]:
    summary = dissection.summary
    yield f"{summary['named']} of {summary['tested']} tested filters stand for a part (q <= .05):"
    for part, count in summary["named_per_part"].items():
        if count:
            yield f"  {printable(part)}: {count} filters"
    rows = sorted((row for row in dissection.filters if row.part), key=_closeness, reverse=True)
    for row in rows[:MOST_ROWS]:
        also = f", also {', '.join(map(printable, row.also))}" if row.also else ""
        part = printable(row.part or "")
        yield f"  filter {_called(row):<12} {part:<14} IoU {_closeness(row):.2f}  q {row.q:.3f}{also}"
    if len(rows) > MOST_ROWS:
        yield f"  ... {len(rows) - MOST_ROWS} more in filters.csv"


def _closeness(row: FilterRow) -> float:
    return row.parts.get(row.part or "", {}).get("matched_iou") or 0.0


def _called(row: FilterRow) -> str:
    return f"{row.filter} ({printable(row.name)})" if row.name else str(row.filter)


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


def comparison_json(comparison: Comparison) -> str:
    """One JSON document: all changes."""
    return json.dumps({**asdict(comparison), "drifted": len(comparison.drifted)}, allow_nan=False)


def comparison_lines(comparison: Comparison, out: Path | None) -> Iterator[str]:
    """What drifted, the largest changes first."""
    first, second = comparison.images
    how = "the same images" if comparison.paired else "different images"
    compared = len(comparison.changes)
    yield f"two runs of {comparison.kind}, {first} and {second} images ({how}), {compared} things compared"
    if not comparison.drifted:
        yield "nothing drifted"
    for change in comparison.drifted[:MOST_ROWS]:
        if change.change is None:
            yield f"  {change.what:<22} {printable(change.of):<14} {change.before} -> {change.after}"
            continue
        interval = f"{change.change:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        surely = "" if change.q is None else f"  q {change.q:.3f}"
        yield f"  {printable(change.what):<22} {printable(change.of):<14} {interval}{surely}"
    if len(comparison.drifted) > MOST_ROWS:
        yield f"  ... {len(comparison.drifted) - MOST_ROWS} more"
    if out is not None:
        yield f"report    {out / 'report.html'}"
