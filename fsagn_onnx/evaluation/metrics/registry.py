"""Metrics by name: every file of this folder registers its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from ...discovery import import_all
from .interface import Metric

T = TypeVar("T", bound=type[Any])


@dataclass(frozen=True)
class MetricSetting:
    """What a run tells its metrics.

    Attributes:
        first: the method that the others are compared with.
        areas: at which masks are cut.
    """

    first: str
    areas: Sequence[float]


Make = Callable[[Any, MetricSetting], Metric]
_FOUND: dict[str, tuple[int, Callable[[MetricSetting], Metric]]] = {}


def metric(place: int, make: Make = lambda kind, setting: kind()) -> Callable[[T], T]:
    """Register a class as a metric, under its attribute ``name``.

    Args:
        place: of its rows in the tables, lowest first.
        make: what makes it of the class and the run's setting; unless told, it takes nothing.
    """

    def register(kind: T) -> T:
        _FOUND[kind.name] = (place, lambda setting: make(kind, setting))
        return kind

    return register


@cache
def metrics() -> dict[str, Callable[[MetricSetting], Metric]]:
    """Name -> what makes the metric, in the order of the tables."""
    import_all(__package__)
    return {name: make for name, (_, make) in sorted(_FOUND.items(), key=lambda item: item[1][0])}
