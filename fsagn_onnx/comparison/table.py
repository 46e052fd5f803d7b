"""The result of `compare` as one table."""

from __future__ import annotations

from ..report.table import Table, short_number
from .comparison import Comparison


def comparison_table(comparison: Comparison) -> Table:
    """All changes, drifted ones first."""
    return Table(
        f"{len(comparison.drifted)} of {len(comparison.changes)} things drifted between two runs of {comparison.kind}",
        ("what", "of", "before", "after", "change", "95 % interval", "q", "drifted"),
        tuple(
            (
                change.what, change.of, _shown(change.before), _shown(change.after), _signed(change.change),
                None if change.low is None else f"{_signed(change.low)} … {_signed(change.high)}",
                short_number(change.q),
                "yes" if change.drifted else "no",
            )
            for change in comparison.changes
        ),
    )  # fmt: skip


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.3f}"


def _shown(value: float | str | None) -> str | None:
    return value if value is None or isinstance(value, str) else f"{value:.3f}"
