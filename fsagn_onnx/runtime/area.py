"""Areas of masks: the one asked for, and the sufficient one. Why this rule: docs/design/0019-sufficient-area.md."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError

DEFAULT_AREA: Final = 0.1
"""The area where retention is neither predicted nor measured."""

LARGEST: Final = 0.5
"""The largest area that counts as a small one: half of the picture."""

LEAST_LEAD: Final = 0.05
"""By so much the area must keep more than a random one; below, no small area suffices."""

SHARE: Final = 0.8
"""The smallest area with this share of the largest lead is taken: leads are flat at the top."""

SHARE_OF_DECISION: Final = 0.5
"""Likewise of a decision, whose lead still rises where small areas end: little of it is left without all around."""

NO_AREA: Final = 0.0
"""Where no small area suffices."""


@dataclass(frozen=True)
class AreaWish:
    """The area that someone wants.

    Attributes:
        share: of the picture, in (0, 1]; None: what suffices.
        target: retention in (0, 1) that the area has to reach; None: `sufficient_area` decides.
    """

    share: float | None = None
    target: float | None = None

    @classmethod
    def parse(cls, area: str | float) -> AreaWish:
        """``auto``, a share in (0, 1], or ``r:.8``: the smallest area that keeps so much.

        Raises:
            UsageError: none of them.
        """
        if area == "auto":
            return cls()
        text = str(area)
        number = _number(text.removeprefix("r:"))
        if text.startswith("r:") and 0 < number < 1:
            return cls(target=number)
        if text.startswith("r:") or not 0 < number <= 1:
            raise UsageError(f"area must be 'auto', a number in (0, 1], or 'r:' and a retention, but got {area!r}")
        return cls(share=number)

    def found(
        self,
        areas: Sequence[float],
        retention: Sequence[float],
        random: Sequence[float] | None,
        share: float = SHARE,
    ) -> float:
        """The area of what keeps so much at some areas; see `sufficient_area`."""
        if self.share is not None:
            return self.share
        if self.target is not None:
            return smallest_reaching(self.target, areas, retention)
        return sufficient_area(areas, retention, random, share)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def sufficient_area(
    areas: Sequence[float],
    retention: Sequence[float],
    random: Sequence[float] | None = None,
    share: float = SHARE,
) -> float:
    """The smallest area that keeps nearly as much more than a random one as any small area does.

    Of the lead r(a) - r_random(a) at areas up to `LARGEST`, that is the smallest area with a share of the largest,
    linear between the areas of the grid.

    Args:
        areas: ascending, in (0, 1].
        retention: r at these areas.
        random: what a random area of each size keeps; None: r_random(a) = a, which no measured network is above.
        share: of the largest lead; `SHARE_OF_DECISION` for decisions.

    Returns:
        The area, at least the smallest of the grid; `NO_AREA` where none leads by `LEAST_LEAD`.
    """
    count = sum(area <= LARGEST for area in areas)
    leads = [retention[i] - (areas if random is None else random)[i] for i in range(count)]
    most = max(leads, default=NO_AREA)
    if most < LEAST_LEAD:
        return NO_AREA
    return smallest_reaching(share * most, areas[:count], leads)


def smallest_reaching(target: float, areas: Sequence[float], values: Sequence[float]) -> float:
    """The smallest area at which the values reach a target, linear between; `NO_AREA` where they do not."""
    for i, value in enumerate(values):
        if value >= target:
            if i == 0:
                return float(areas[0])
            share = (target - values[i - 1]) / (value - values[i - 1])
            return float(areas[i - 1] + share * (areas[i] - areas[i - 1]))
    return NO_AREA


def retention_at(area: float, areas: Sequence[float], retention: Sequence[float]) -> float:
    """Retention at an area, linear between the areas of the grid and the ends r(0) = 0 and r(1) = 1."""
    points = [(0.0, 0.0), *zip(areas, retention, strict=True)]
    if points[-1][0] < 1:
        points.append((1.0, 1.0))
    for (a0, r0), (a1, r1) in itertools.pairwise(points):
        if area <= a1:
            return float(r0 + (r1 - r0) * (area - a0) / (a1 - a0))
    return float(points[-1][1])
