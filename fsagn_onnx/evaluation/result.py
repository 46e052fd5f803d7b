"""What an evaluation found: rows, costs, dead filters, failures; as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..methods import Passes
from ..runtime.stream import Failure
from ..statistics.bootstrap import Interval
from .metrics.interface import MetricRow

LISTED = 20
"""Dead filters listed in the Markdown table; all are in the JSON document."""


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes:
        seconds: per (image, filter), measured.
        passes: of the model, for one image with all its filters, beyond the one that gives the feature map.
    """

    seconds: float
    passes: Passes

    def to_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"seconds": self.seconds, "forward": self.passes.forward, "backward": self.passes.backward}


@dataclass(frozen=True)
class Evaluation:
    """The figures of every method.

    Attributes:
        layer: the explained layer.
        methods: in the order of the tables.
        images: number of images measured.
        pairs: (image, filter) pairs measured.
        filters: filters asked for per image.
        rows: one per metric, infill and method.
        curves: by infill and method: mean retention at each of ``areas``.
        areas: at which masks were cut.
        costs: by method.
        dead: filters that answered to no image at all.
        missing: pairs left out because an image has fewer living filters than asked for.
        failures: images that could not be read.
    """

    layer: str
    methods: tuple[str, ...]
    images: int
    pairs: int
    filters: int
    rows: tuple[MetricRow, ...]
    curves: Mapping[str, Mapping[str, tuple[float, ...]]]
    areas: tuple[float, ...]
    costs: Mapping[str, Cost]
    dead: tuple[int, ...]
    missing: int
    failures: tuple[Failure, ...]

    def value(self, metric: str, method: str, infill: str | None = None) -> Interval:
        """One figure.

        Raises:
            KeyError: there is none of that name.
        """
        for row in self.rows:
            if (row.metric, row.method, row.infill) == (metric, method, infill):
                return row.value
        raise KeyError((metric, method, infill))

    def metrics(self) -> list[str]:
        """Titles of the rows, each once, in order."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "layer": self.layer,
            "methods": list(self.methods),
            "images": self.images,
            "pairs": self.pairs,
            "filters": self.filters,
            "areas": list(self.areas),
            "rows": [row.to_dict() for row in self.rows],
            "curves": {
                infill: {name: list(curve) for name, curve in row.items()} for infill, row in self.curves.items()
            },
            "costs": {name: cost.to_dict() for name, cost in self.costs.items()},
            "dead": list(self.dead),
            "missing": self.missing,
            "failures": [vars(failure) for failure in self.failures],
        }

    def to_markdown(self) -> str:
        """One table per metric, methods down and infills across, and the costs."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# Evaluation of `{self.layer}`"
        yield ""
        yield (
            f"{self.images} images, {self.pairs} (image, filter) pairs, common granularity, areas "
            f"{', '.join(map(str, self.areas))}; mean [95 % bootstrap interval over images]."
        )
        if self.dead:
            more = "" if len(self.dead) <= LISTED else f" and {len(self.dead) - LISTED} more"
            yield f"Dead in every image, left out: {', '.join(map(str, self.dead[:LISTED]))}{more}."
        if self.missing:
            yield f"{self.missing} pairs left out: fewer living filters in the image than asked for."
        for metric in self.metrics():
            yield from self._table(metric, [row for row in self.rows if row.metric == metric])
        yield from ("", "## cost", "", "| method | seconds per (image, filter) | forward passes | backward passes |")
        yield "|---|---|---|---|"
        for name, cost in self.costs.items():
            yield f"| {name} | {cost.seconds:.4f} | {cost.passes.forward} | {cost.passes.backward} |"

    @staticmethod
    def _table(metric: str, rows: Sequence[MetricRow]) -> Iterator[str]:
        infills = list(dict.fromkeys(row.infill for row in rows))
        cells = {(row.method, row.infill): row for row in rows}
        yield from ("", f"## {metric}", "")
        yield f"| method | {' | '.join(infill or metric for infill in infills)} | over |"
        yield "|---" * (len(infills) + 2) + "|"
        for method in dict.fromkeys(row.method for row in rows):
            found = [cells.get((method, infill)) for infill in infills]
            over = next(f"{row.count} {row.unit}" for row in found if row is not None)
            yield f"| {method} | {' | '.join('' if row is None else str(row.value) for row in found)} | {over} |"
