"""What the caller asks for: which filters, at which area."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from ..errors import UsageError
from .engine import EngineMetadata
from .metadata import ExplainerMetadata
from .variant import FILL

FILTERS_PER_PASS: Final = 64
"""So many filters asked for by id go through the graph at a time."""

TARGET_RETENTION: Final = 0.8
"""The retention that the sufficient area reaches."""

DEFAULT_AREA: Final = 0.1
"""The area where the sufficient area is unknown."""


def filter_slots(filters: str | int | Sequence[int], metadata: EngineMetadata) -> tuple[int, ...]:
    """The slots of one request: filter ids, or -1 for "the strongest not asked for by id".

    Args:
        filters: ``top:K``, ``all``, ids with commas (``3,17``), or a sequence of ids and -1.
        metadata: names the layer and its number of filters.

    Returns:
        Slots without repeated ids, at most as many as the layer has (``top:K``: or the file answers) filters.
        Of a file with a fixed set, ``all`` is that set.

    Raises:
        UsageError: a text of another form, an id out of range, or nothing asked for.
    """
    count = metadata.filters
    fixed = metadata.variant.slots if isinstance(metadata, ExplainerMetadata) else None
    if isinstance(filters, str):
        text = filters.strip()
        if text == "all":
            return tuple(range(count)) if fixed is None else fixed
        if text.startswith("top:"):
            asked = _whole(text.removeprefix("top:"), filters)
            if asked < 1:
                raise UsageError(f"filters must ask for at least one, but got '{filters}'")
            return (FILL,) * min(asked, count if fixed is None else len(fixed))
        slots = [_whole(part, filters) for part in text.split(",")]
    else:
        slots = [filters] if isinstance(filters, int) else [int(slot) for slot in filters]
    if not slots:
        raise UsageError("no filters asked for; expected 'top:K', 'all' or filter ids")
    for slot in slots:
        if slot != FILL and not 0 <= slot < count:
            raise UsageError(f"no filter {slot}: layer '{metadata.layer}' has {count} filters, 0..{count - 1}")
    apart = [slot for place, slot in enumerate(slots) if slot == FILL or slot not in slots[:place]]
    asked = sum(slot != FILL for slot in apart)
    spare = itertools.count()
    return tuple(slot for slot in apart if slot != FILL or next(spare) < count - asked)


def _whole(text: str, filters: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"filters must be 'top:K', 'all' or ids like '3,17', but got '{filters}'") from None


def passes(slots: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Cut a request into passes; slots to be filled must stay together, since they depend on one another."""
    if FILL in slots:
        yield slots
        return
    for start in range(0, len(slots), FILTERS_PER_PASS):
        yield slots[start : start + FILTERS_PER_PASS]


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
