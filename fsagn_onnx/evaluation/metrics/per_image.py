"""Figures kept per image and method until they are asked for, and their way through JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...statistics.bootstrap import bootstrap_mean
from .interface import MetricRow

DIGITS = 5

Key = tuple[str, str | None]
"""(method, infill)."""


def jsonable(values: NDArray[Any]) -> Any:
    """Nested lists with five digits after the point; NaN becomes None."""
    if values.ndim:
        return [jsonable(part) for part in values]
    number = values.item()
    if isinstance(number, float):
        return None if np.isnan(number) else round(number, DIGITS)
    return number


def array(values: Any) -> NDArray[np.float64]:
    """The inverse of `jsonable`."""
    return np.array(values, dtype=np.float64)


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Mean without the NaN, NaN where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


class PerImage:
    """One number per image for each (method, infill); images that lack one hold NaN."""

    def __init__(self) -> None:
        self._values: dict[Key, dict[int, float]] = {}
        self.images = 0

    def start(self) -> None:
        """The next image."""
        self.images += 1

    def add(self, method: str, infill: str | None, value: float) -> None:
        """The number of the image at hand."""
        self._values.setdefault((method, infill), {})[self.images - 1] = value

    def keys(self) -> Iterator[Key]:
        """In the order in which they came."""
        return iter(self._values)

    def methods(self, infill: str | None) -> Sequence[str]:
        """Those that have numbers under an infill."""
        return [method for method, kind in self._values if kind == infill]

    def of(self, method: str, infill: str | None) -> NDArray[np.float64]:
        """``(n,)``."""
        values = np.full(self.images, np.nan)
        for image, value in self._values.get((method, infill), {}).items():
            values[image] = value
        return values


def titled_rows(values: PerImage, titles: Mapping[str, str]) -> list[MetricRow]:
    """A row per title, method and infill, out of numbers kept under ``KIND|INFILL``."""
    rows = []
    for kind, title in titles.items():
        for method, key in values.keys():  # noqa: SIM118
            which, infill = str(key).split("|")
            if which == kind:
                known = values.of(method, key)
                rows.append(MetricRow(title, method, infill, bootstrap_mean(known), int((~np.isnan(known)).sum())))
    return rows
