"""What a metric says: rows, each one figure of one method, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...statistics.bootstrap import Interval
from ..image_masks import ImageMasks


@dataclass(frozen=True)
class MetricRow:
    """One figure.

    Attributes:
        metric: its name, for example ``retention AUC``.
        method: whose figure it is.
        infill: what shows through outside the mask, or None where the metric masks nothing.
        value: the figure and its 95 % interval over images.
        count: of what it was taken over: images, pairs or filters, see ``unit``.
        unit: what ``count`` counts.
    """

    metric: str
    method: str
    infill: str | None
    value: Interval
    count: int
    unit: str = "images"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a figure that there is none of is null."""
        figures = {name: None if math.isnan(number) else number for name, number in vars(self.value).items()}
        return {**vars(self), "value": figures}


class Metric(Protocol):
    """A family of figures.

    `measure` does the work on one image and returns JSON values, which a run writes down; `update` takes what
    `measure` returned, in this run or an earlier one; `compute` gives the rows.
    """

    @property
    def name(self) -> str:
        """As in `--metrics` and in the lines of a run."""

    def measure(self, view: ImageMasks) -> Any:
        """Measure one image; None where the metric does not apply to it."""

    def update(self, measured: Any) -> None:
        """Add one image's measurement."""

    def compute(self) -> Sequence[MetricRow]:
        """The figures over all images added so far."""
