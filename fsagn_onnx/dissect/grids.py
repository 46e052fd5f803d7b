"""The results of `dissect`, `perturb` and `compare` as one table each."""

from __future__ import annotations

from ..report.grid import Grid
from .compare import Comparison
from .perturbation import Perturbation
from .table import Dissection

ATLAS_PARTS = 12


def dissection_grid(dissection: Dissection) -> Grid:
    """Filters x parts, shaded by size-matched IoU; those with a part first."""
    counts = dissection.summary.get("named_per_part", {})
    parts = sorted(dissection.parts, key=lambda part: (-counts.get(part, 0), part))[:ATLAS_PARTS]
    rows = sorted(
        dissection.filters, key=lambda row: (row.part is None, row.q if row.q is not None else 1.0, row.filter)
    )
    iou = [[row.parts.get(part, {}).get("matched_iou") or 0.0 for part in parts] for row in rows]
    peak = max((value for values in iou for value in values), default=0.0) or 1.0
    head = ("filter", "part", "q", "active", "group", *parts)
    return Grid(
        f"What the {len(rows)} filters of layer {dissection.layer} stand for ({dissection.images} images)",
        head,
        tuple(
            (
                str(row.filter), row.name or row.part, _number(row.q), f"{100 * row.frequency:.0f} %",
                None if row.group is None else str(row.group), *(f"{value:.2f}" for value in values),
            )
            for row, values in zip(rows, iou, strict=True)
        ),
        tuple((0.0,) * 5 + tuple(value / peak for value in values) for values in iou),
    )  # fmt: skip


def perturbation_grid(result: Perturbation) -> Grid:
    """Per class the regions, from the one that the model leans on most."""
    listed = [(label, row) for label, rows in (result.parts or result.filters).items() for row in rows]
    peak = max((abs(row["effect"]) for _, row in listed), default=0.0) or 1.0
    return Grid(
        f"What the model leans on: layer {result.layer}, {result.images} images",
        ("class", "region", "images", "effect", "95 % interval", "q", "decisions flipped"),
        tuple(
            (
                label, _region(result, row["region"]), str(row["images"]), f"{row['effect']:+.3f}",
                f"{row['interval'][0]:+.3f} … {row['interval'][1]:+.3f}", _number(row["q"]),
                f"{100 * row['flipped']:.1f} %",
            )
            for label, row in listed
        ),
        tuple((0.0, 0.0, 0.0, abs(row["effect"]) / peak, 0.0, 0.0, 0.0) for _, row in listed),
    )  # fmt: skip


def _region(result: Perturbation, region: int | str) -> str:
    if isinstance(region, str):
        return region
    name = result.names.get(region)
    return f"filter {region}" + (f" ({name})" if name else "")


def comparison_grid(comparison: Comparison) -> Grid:
    """All changes, drifted ones first."""
    return Grid(
        f"{len(comparison.drifted)} of {len(comparison.changes)} things drifted between two runs of {comparison.kind}",
        ("what", "of", "before", "after", "change", "95 % interval", "q", "drifted"),
        tuple(
            (
                change.what, change.of, _shown(change.before), _shown(change.after), _signed(change.change),
                None if change.low is None else f"{_signed(change.low)} … {_signed(change.high)}", _number(change.q),
                "yes" if change.drifted else "no",
            )
            for change in comparison.changes
        ),
    )  # fmt: skip


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.3f}"


def _shown(value: float | str | None) -> str | None:
    return value if value is None or isinstance(value, str) else f"{value:.3f}"
