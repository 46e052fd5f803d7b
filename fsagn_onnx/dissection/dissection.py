"""What `dissect` finds out, and its files: JSON lines, CSV, Parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..runs.column_folder import ColumnFolder
from ..runs.reader import FinishedRun
from ..runs.tables import csv_text, save_parquet

LEVEL: Final = 0.05
"""A filter is given a part at q up to this."""
METRICS: Final = (
    "iou", "image_iou", "matched_iou", "located", "share", "pointed", "instability", "peak_instability", "expected_iou",
    "p",
)  # fmt: skip
"""Columns of the table filters x parts, see `Scores.compute` and `PlaceTest`."""


@dataclass(frozen=True)
class FilterRow:
    """What is known of one filter.

    Attributes:
        filter: its id.
        name: the name that the user gave it, or None.
        part: the part that it stands for, or None where that is not proven.
        also: further parts that it follows, best first.
        q: false-discovery-corrected p value of its best part; None where nothing was tested.
        best: its best part by size-matched IoU, proven or not; None without annotations.
        frequency: share of the images in which it is active.
        active: number of these images.
        entropy: how its masks spread over parts, 0 one part, 1 all alike; None without annotations.
        group: number of its group; None where it has none.
        threshold: peak from which it counts as active; None for a dead filter.
        parts: part -> metric -> value.
        classes: class -> frequency, best part and its size-matched IoU there.
        references: images in which it is strongest.
        decisive: class -> in how many images with this answer the filter is among those that add most to it; empty
            where that was not asked.
    """

    filter: int
    name: str | None = None
    part: str | None = None
    also: tuple[str, ...] = ()
    q: float | None = None
    best: str | None = None
    frequency: float = 0.0
    active: int = 0
    entropy: float | None = None
    group: int | None = None
    threshold: float | None = None
    parts: dict[str, dict[str, float | None]] = field(default_factory=dict)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    decisive: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The filter's line of ``filters.jsonl``."""
        return {**vars(self), "also": list(self.also), "references": list(self.references)}

    @classmethod
    def from_dict(cls, members: dict[str, Any]) -> FilterRow:
        """The inverse of `to_dict`."""
        return cls(**{**members, "also": tuple(members["also"]), "references": tuple(members["references"])})


@dataclass(frozen=True)
class Dissection:
    """The result of `dissect`.

    Attributes:
        folder: where it lies.
        layer: the dissected layer.
        images: images looked at.
        annotated: how many of them have part annotations.
        parts: names of the parts.
        filters: a row per filter.
        summary: further figures of the whole layer.
    """

    folder: Path
    layer: str
    images: int
    annotated: int
    parts: tuple[str, ...]
    filters: tuple[FilterRow, ...]
    summary: dict[str, Any]

    def decisive_for(self, row: FilterRow) -> str | None:
        """``short 12/15, open 3/9``: in how many of the images with an answer a filter is decisive for it; or None."""
        pictures = self.summary.get("decisive", {}).get("pictures", {})
        return ", ".join(f"{name} {count}/{pictures[name]}" for name, count in row.decisive.items()) or None

    def filter(self, number: int) -> FilterRow:
        """The row of a filter.

        Raises:
            KeyError: it was not looked at.
        """
        return next(row for row in self.filters if row.filter == number)

    def atlas(self, metric: str = "matched_iou", rows: int = 60) -> Atlas:
        """The table filters x parts with shaded cells, for a notebook.

        Args:
            metric: one of `METRICS`.
            rows: filters to show, those with a part first.
        """
        return Atlas(self, metric, rows)

    @classmethod
    def load(cls, folder: str | Path) -> Dissection:
        """Read the result of a finished run.

        Raises:
            OutputError: no finished `dissect` run.
        """
        run = FinishedRun(folder, "dissect")
        manifest = run.manifest
        return cls(
            run.path,
            manifest["layer"],
            manifest["images"],
            manifest["annotated"],
            tuple(manifest["parts"]),
            tuple(map(FilterRow.from_dict, run.lines("filters.jsonl", FilterRow))),
            manifest["summary"],
        )


class Atlas:
    """Filters x parts as a table with shaded cells; shows itself in a notebook."""

    def __init__(self, dissection: Dissection, metric: str, rows: int) -> None:
        self._dissection, self._metric, self._rows = dissection, metric, rows

    def _repr_html_(self) -> str:
        from html import escape

        parts = self._dissection.parts
        cells = [
            (row, [row.parts.get(part, {}).get(self._metric) for part in parts]) for row in self._dissection.filters
        ]
        cells.sort(
            key=lambda item: (item[0].part is None, item[0].part or "", -(max(filter(None, item[1]), default=0)))
        )
        peak = max((value for _, values in cells for value in values if value), default=1.0)
        head = "".join(f"<th scope='col'>{escape(part)}</th>" for part in parts)
        body = "".join(
            f"<tr><th scope='row'>{row.filter}</th><td>{escape(row.name or row.part or '–')}</td>"
            + "".join(_cell(value, peak) for value in values)
            + "</tr>"
            for row, values in cells[: self._rows]
        )
        return (
            f"<table><thead><tr><th>filter</th><th>part</th>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{len(cells)} filters of layer {escape(self._dissection.layer)}; cells: {self._metric}</p>"
        )


def _cell(value: float | None, peak: float) -> str:
    shade = 0.0 if value is None else 0.75 * value / peak
    return f"<td style='background:rgba(255,170,40,{shade:.2f})'>{'' if value is None else f'{value:.2f}'}</td>"


def write_tables(folder: ColumnFolder, filters: Sequence[FilterRow], parts: Sequence[str]) -> None:
    """Write ``filters.jsonl``, ``filters.csv`` (a row each) and ``filters.parquet`` (a row per filter and part)."""
    folder.write("filters.jsonl", "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in filters))
    head = ("filter", "name", "part", "also", "q", "best", "frequency", "active", "entropy", "group", "decisive")
    pairs = [(part, metric) for part in parts for metric in ("matched_iou", "image_iou", "iou", "p")]
    rows: list[list[object]] = []
    for row in filters:
        own = [row.filter, row.name, row.part, " ".join(row.also), row.q, row.best]
        own += [row.frequency, row.active, row.entropy, row.group, sum(row.decisive.values()) or None]
        rows.append([*own, *(row.parts.get(part, {}).get(metric) for part, metric in pairs)])
    folder.write("filters.csv", csv_text([*head, *(f"{metric}:{part}" for part, metric in pairs)], rows))
    _write_parquet(folder.path / "filters.parquet", filters, parts)


def _write_parquet(path: Path, filters: Sequence[FilterRow], parts: Sequence[str]) -> None:
    import pyarrow as arrow

    listed: list[str | None] = [*parts] or [None]
    pairs = [(row, part) for row in filters for part in listed]
    columns: dict[str, Any] = {
        "filter": arrow.array([row.filter for row, _ in pairs], arrow.int64()),
        "part": arrow.array([part for _, part in pairs], arrow.string()),
        "given": arrow.array(
            [part is not None and part in (row.part, *row.also) for row, part in pairs], arrow.bool_()
        ),
        "q": arrow.array([row.q for row, _ in pairs], arrow.float64()),
        "frequency": arrow.array([row.frequency for row, _ in pairs], arrow.float64()),
        "group": arrow.array([row.group for row, _ in pairs], arrow.int64()),
    }
    for metric in METRICS:
        values = [None if part is None else row.parts.get(part, {}).get(metric) for row, part in pairs]
        columns[metric] = arrow.array(values, arrow.float64())
    save_parquet(path, columns)
