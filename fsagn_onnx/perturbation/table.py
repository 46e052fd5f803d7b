"""The result of `perturb` as one table."""

from __future__ import annotations

from ..report.table import Table, short_number
from .perturbation import Perturbation


def perturbation_table(result: Perturbation) -> Table:
    """Per class the regions, from the one that the model leans on most."""
    listed = [(label, row) for label, rows in (result.parts or result.filters).items() for row in rows]
    peak = max((abs(row["effect"]) for _, row in listed), default=0.0) or 1.0
    return Table(
        f"What the model leans on: layer {result.layer}, {result.images} images",
        ("class", "region", "images", "effect", "95 % interval", "q", "decisions flipped"),
        tuple(
            (
                label, _region(result, row["region"]), str(row["images"]), f"{row['effect']:+.3f}",
                f"{row['interval'][0]:+.3f} … {row['interval'][1]:+.3f}", short_number(row["q"]),
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
