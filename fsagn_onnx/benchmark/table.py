"""A benchmark's rows as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from .cases import BenchmarkRow
from .paired import Spread


def as_table(rows: Sequence[BenchmarkRow]) -> Table:
    """One line per row: medians, quartiles in brackets."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("explainer")
    for name in (
        "precision",
        "provider",
        "threads",
        "batch",
        "K",
        "model ms",
        "explainer ms",
        "ratio",
        "images/s",
        "class",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.explainer,
            row.precision,
            row.provider.removesuffix("ExecutionProvider"),
            "-" if row.threads is None else str(row.threads),
            str(row.batch),
            str(row.filters),
            f"{row.model_ms.median:.2f}",
            f"{row.explainer_ms.median:.2f}",
            brackets(row.ratio),
            f"{row.images_per_second:.1f}",
            "-" if row.same_class is None else f"{row.same_class:.0%}",
        )
    return table


def brackets(spread: Spread) -> str:
    """Median and quartiles."""
    return f"{spread.median:.3f} ({spread.low:.3f}-{spread.high:.3f})"
