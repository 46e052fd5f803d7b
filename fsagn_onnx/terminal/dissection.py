"""What `dissect` says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from ..dissection.dissection import Dissection, FilterRow
from ..runtime.drawing.typeface import printable

MOST_ROWS: Final = 20
MOST_DECISIVE: Final = 8
"""Filters that are named for each class."""


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
    yield from _decisive(dissection)
    if dissection.parts:
        yield from _parts(dissection)
    elif dissection.summary["groups"] < 2:
        yield "no groups of filters stand out (no --parts: name filters by eye in the report)"
    else:
        yield f"{dissection.summary['groups']} groups of filters (no --parts: name them by eye in the report)"
        for number in range(dissection.summary["groups"]):
            members = [row for row in dissection.filters if row.group == number]
            listed = ", ".join(_called(row) for row in members[:12])
            yield f"  group {number}: {listed}" + (f", ... {len(members) - 12} more" if len(members) > 12 else "")
    yield f"table     {dissection.folder / 'filters.csv'}"
    yield f"masks     {dissection.folder / 'masks.json'}"
    yield f"report    {dissection.folder / 'report.html'}"


def _decisive(dissection: Dissection) -> Iterator[str]:
    """Per class the filters that carry it most often."""
    asked = dissection.summary.get("decisive")
    if asked is None:
        return
    yield f"decisive: among the {asked['most']} filters that add most to the answer"
    for name, pictures in asked["pictures"].items():
        rows = sorted(dissection.filters, key=lambda row: -row.decisive.get(name, 0))
        listed = [f"{_called(row)} in {row.decisive[name]}" for row in rows[:MOST_DECISIVE] if name in row.decisive]
        yield f"  {printable(name)} ({pictures} images): filter {', '.join(listed) or '-'}"


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
