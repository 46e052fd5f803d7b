"""The result of `dissect` as one table."""

from __future__ import annotations

from ..report.table import Table, short_number
from .dissection import Dissection

ATLAS_PARTS = 12


def dissection_table(dissection: Dissection) -> Table:
    """Filters x parts, shaded by size-matched IoU; those with a part first."""
    counts = dissection.summary.get("named_per_part", {})
    parts = sorted(dissection.parts, key=lambda part: (-counts.get(part, 0), part))[:ATLAS_PARTS]
    rows = sorted(
        dissection.filters, key=lambda row: (row.part is None, row.q if row.q is not None else 1.0, row.filter)
    )
    iou = [[row.parts.get(part, {}).get("matched_iou") or 0.0 for part in parts] for row in rows]
    peak = max((value for values in iou for value in values), default=0.0) or 1.0
    asked = "decisive" in dissection.summary
    head = ("filter", "part", "q", "active", "group", *(("decisive in",) if asked else ()), *parts)
    return Table(
        f"What the {len(rows)} filters of layer {dissection.layer} stand for ({dissection.images} images)",
        head,
        tuple(
            (
                str(row.filter), row.name or row.part, short_number(row.q), f"{100 * row.frequency:.0f} %",
                None if row.group is None else str(row.group), *((dissection.decisive_for(row),) if asked else ()),
                *(f"{value:.2f}" for value in values),
            )
            for row, values in zip(rows, iou, strict=True)
        ),
        tuple((0.0,) * (5 + asked) + tuple(value / peak for value in values) for values in iou),
    )  # fmt: skip
