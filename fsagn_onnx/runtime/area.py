"""Areas of masks: the one asked for, and the smallest one that suffices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from ..errors import UsageError

TARGET_RETENTION: Final = 0.8
"""The retention that the sufficient area reaches."""

DEFAULT_AREA: Final = 0.1
"""The area where the sufficient area is unknown."""


def fixed_area(area: str | float) -> float | None:
    """The asked area in (0, 1], or None for ``auto``.

    Raises:
        UsageError: neither ``auto`` nor a number in (0, 1].
    """
    if area == "auto":
        return None
    try:
        number = float(area)
    except ValueError:
        number = float("nan")
    if not 0 < number <= 1:
        raise UsageError(f"area must be 'auto' or a number in (0, 1], but got {area!r}")
    return number


def sufficient_area(areas: Sequence[float], retention: Sequence[float], target: float = TARGET_RETENTION) -> float:
    """The smallest area whose retention reaches the target, linear between the areas of the grid.

    Args:
        areas: ascending, in (0, 1], at least one.
        retention: r at these areas.
        target: the retention to reach.

    Returns:
        The smallest area of the grid if it reaches the target already. Where none reaches it, the smallest that
        keeps the target's share of the most retention that any area has: the largest area would tell nothing.
    """
    target = min(target, target * max(retention) if max(retention) < target else target)
    if retention[0] >= target:
        return float(areas[0])
    for i in range(1, len(areas)):
        if retention[i] >= target:
            share = (target - retention[i - 1]) / (retention[i] - retention[i - 1])
            return float(areas[i - 1] + share * (areas[i] - areas[i - 1]))
    return float(areas[-1])


def retention_at(area: float, areas: Sequence[float], retention: Sequence[float]) -> float:
    """Retention at an area, linear between the areas of the grid and the ends r(0) = 0 and r(1) = 1."""
    points = [(0.0, 0.0), *zip(areas, retention, strict=True)]
    if points[-1][0] < 1:
        points.append((1.0, 1.0))
    for (a0, r0), (a1, r1) in itertools.pairwise(points):
        if area <= a1:
            return float(r0 + (r1 - r0) * (area - a0) / (a1 - a0))
    return float(points[-1][1])
