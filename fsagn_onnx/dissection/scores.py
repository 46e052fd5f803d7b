"""The table filters x parts: sums over the images of a run, slice by slice, and the metrics out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.column_folder import ColumnFolder
from ..runs.columns import SLICE_BYTES
from .observations import unpack

Floats = NDArray[np.float64]

ACTIVE_SHARE: Final = 0.5
"""A filter is active in an image whose peak reaches this share of the filter's strong answer."""
STRONG: Final = 0.99
"""Quantile of a filter's peaks over the images that counts as its strong answer."""
DETECTOR: Final = 0.04
"""Network Dissection calls a filter a detector of a part from this union IoU on (Bau et al. 2017, section 3.1)."""
LOCATED: Final = 0.2
"""Per-image IoU that counts as located (Zhang, Wu & Zhu 2018, section 5.2.1)."""


def thresholds(folder: ColumnFolder) -> Floats:
    """Peak from which each filter counts as active, (K,): half the .99 quantile of its peaks; infinite if dead."""
    peaks = folder.columns["peaks"]
    filters = peaks.shape[0]
    found = np.full(filters, np.inf)
    step = max(1, SLICE_BYTES // max(4 * folder.rows, 1))
    for first in range(0, filters, step):
        part = np.concatenate([rows[:, first : first + step] for _, rows in peaks.slices(folder.rows)])
        strong = np.quantile(part, STRONG, axis=0)
        found[first : first + step] = np.where(strong > 0, ACTIVE_SHARE * strong, np.inf)
    return found


@dataclass(frozen=True, eq=False)
class GridParts:
    """The annotated parts of one image on the grid.

    Attributes:
        ids: part numbers (n,), distinct.
        cells: float32 (n, cells), share of each cell that the part covers.
        centres: (n, 2), (x, y) in pixels of the original.
        matched: float32 (n, K), `matched_iou` with the filters.
    """

    ids: NDArray[np.int32]
    cells: NDArray[np.float32]
    centres: Floats
    matched: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageRow:
    """What is known of one image: masks (K, cells), peaks (K,), peak cells (K,), geometry (2, 4), its parts."""

    masks: NDArray[np.bool_]
    peaks: NDArray[np.float32]
    places: NDArray[np.int64]
    geometry: Floats
    parts: GridParts | None

    @property
    def size(self) -> tuple[float, float]:
        """(H0, W0) of the original."""
        height, width = self.geometry[1, :2].tolist()
        return height, width


def rows(folder: ColumnFolder, cells: int) -> Iterator[ImageRow]:
    """Every image of a run, in order, at flat memory."""
    columns = folder.columns
    widest = max(column.row_bytes for column in columns.values()) + 8 * columns["peaks"].shape[0]
    step = max(1, SLICE_BYTES // (9 * widest))
    for start in range(0, folder.rows, step):
        stop = min(start + step, folder.rows)
        read = {name: column.read(start, stop) for name, column in columns.items()}
        for n in range(stop - start):
            yield _row({name: values[n] for name, values in read.items()}, cells)


def row_at(folder: ColumnFolder, index: int, cells: int) -> ImageRow:
    """One image of a run."""
    return _row({name: column.row(index) for name, column in folder.columns.items()}, cells)


def _row(values: dict[str, NDArray[Any]], cells: int) -> ImageRow:
    parts = None
    if "part_ids" in values:
        there = values["part_ids"] >= 0
        if there.any():
            parts = GridParts(
                values["part_ids"][there],
                values["part_cells"][there].astype(np.float32) / np.float32(255),
                values["part_centres"][there].astype(np.float64),
                values["part_iou"][there].astype(np.float32),
            )
    return ImageRow(
        unpack(values["masks"], cells),
        values["peaks"],
        values["places"].astype(np.int64),
        values["geometry"],
        parts,
    )


_SUMMED: Final = (
    "both", "inter", "union", "image_iou", "matched_iou", "share", "located", "pointed", "part",
    "mask", "mask_2", "peak", "peak_2",
)  # fmt: skip
"""Sums over the images that have the part and in which the filter is active: their number; cells; shares; the part's
cells; distances of the part's middle to the mask's and to the activation peak, and their squares."""


class Scores:
    """Sums for K filters and P parts over the labelled images, and what they say.

    Args:
        filters: K.
        parts: P.
        grid: (h, w) of the masks.
    """

    def __init__(self, filters: int, parts: int, grid: tuple[int, int]) -> None:
        rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
        self._middles = np.stack([columns + 0.5, rows + 0.5], axis=1) / (grid[1], grid[0])  # of the cells, in 0..1
        self._moments = np.ones((len(self._middles), 3), dtype=np.float32)  # x, y and 1 of every cell
        self._moments[:, :2] = self._middles
        self._squares = (self._middles**2).sum(axis=1)
        self.images = 0
        self.active = np.zeros(filters)
        self.cells = np.zeros(parts)  # of each part in all its images
        self._sums = np.zeros((len(_SUMMED), filters, parts))

    def update(self, row: ImageRow, active: NDArray[np.bool_], map_shape: tuple[int, int]) -> None:
        """Add one image; ``active`` (K,) says where the filters answer."""
        self.images += 1
        self.active += active
        if row.parts is None:
            return
        ids, lit = row.parts.ids, np.flatnonzero(active)
        part = row.parts.cells.sum(axis=1, dtype=np.float64)
        self.cells[ids] += part
        if not lit.size:
            return
        kept = row.masks[lit]
        moments = kept.astype(np.float32) @ np.concatenate([row.parts.cells.T, self._moments], axis=1)
        inter, mask = moments[:, :-3].astype(np.float64), moments[:, -1].astype(np.float64)
        middles = moments[:, -3:-1] / np.maximum(mask, 1)[:, None]
        union = mask[:, None] + part - inter
        iou = inter / np.maximum(union, 1e-9)
        missed, off = distances(centres(row, lit, middles, map_shape), row.parts.centres) / math.hypot(*row.size)
        added = np.empty((len(_SUMMED), *inter.shape))
        for place, values in enumerate(
            (1, inter, union, iou, row.parts.matched[:, lit].T, inter / np.maximum(mask, 1)[:, None], iou > LOCATED,
             self._pointed(kept, middles, row.parts.cells), part, missed, missed**2, off, off**2)
        ):  # fmt: skip
            added[place] = values
        self._sums[:, lit[:, None], ids] += added

    def add(self, other: Scores) -> None:
        """Add the images of another."""
        self.images += other.images
        self.active += other.active
        self.cells += other.cells
        self._sums += other._sums

    def _pointed(self, kept: NDArray[np.bool_], middles: Floats, cells: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether the masks' middles (the kept cell next to the centroid) lie on the parts, (lit, n)."""
        away = self._squares - 2 * (middles @ self._middles.T)
        nearest = np.where(kept, away, np.inf).argmin(axis=1)
        return cells[:, nearest].T >= 0.5

    def compute(self) -> dict[str, Floats]:
        """The metrics, each (K, P); NaN where a filter is active in no image that has the part.

        ``iou``: union over all images labelled for the part, masks only where the filter is active (Network
        Dissection). ``image_iou``: mean over the images where it is active. ``matched_iou``: the same with
        masks of the part's own size, see `collect.matched_iou`. ``located``: share of these images with IoU > .2.
        ``share``: of the mask that lies on the part. ``pointed``: the mask's middle lies on the part (pointing game).
        ``instability`` and ``peak_instability``: standard deviation over images of the distance between the part's
        middle and the mask's centroid (the activation peak), in image diagonals.
        """
        sums = dict(zip(_SUMMED, self._sums, strict=True))
        both, missed = sums["both"], self.cells - sums["part"]  # part cells where the filter is not active
        with np.errstate(invalid="ignore", divide="ignore"):
            per_image = {
                name: np.where(both > 0, sums[name] / both, np.nan)
                for name in ("image_iou", "matched_iou", "located", "share", "pointed")
            }
            found = {"iou": np.where(both > 0, sums["inter"] / (sums["union"] + missed), np.nan), **per_image}
            for name, column in (("mask", "instability"), ("peak", "peak_instability")):
                mean = sums[name] / both
                spread = np.sqrt(np.maximum(sums[f"{name}_2"] / both - mean**2, 0))
                found[column] = np.where(both > 1, spread, np.nan)
        return found

    def entropy(self) -> Floats:
        """How the filter's masks spread over the parts, (K,): -Σ s log s / log P of the shares s, 0 one part, 1 all."""
        share = np.nan_to_num(self.compute()["share"])
        total = share.sum(axis=1, keepdims=True)
        s = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        logs = np.log(s, out=np.zeros_like(s), where=s > 0)
        spread = -(s * logs).sum(axis=1) / max(np.log(max(share.shape[1], 2)), 1e-9)
        return np.where(total[:, 0] > 0, spread, np.nan)


def centres(row: ImageRow, lit: NDArray[np.intp], middles: Floats, map_shape: tuple[int, int]) -> Floats:
    """(2, lit, 2): centroids of masks, and places of the activation peaks, in pixels (x, y) of the original."""
    (scale_x, shift_x, scale_y, shift_y), (_, _, height, width) = row.geometry.tolist()
    places = row.places[lit]
    found = np.empty((2, len(lit), 2))
    found[0] = middles
    found[1, :, 0] = (places % map_shape[1] + 0.5) / map_shape[1]
    found[1, :, 1] = (places // map_shape[1] + 0.5) / map_shape[0]
    found *= (width * scale_x, height * scale_y)
    found += (shift_x, shift_y)
    return found


def distances(points: Floats, others: Floats) -> Floats:
    """(..., m) between points (..., 2) and others (m, 2)."""
    x, y = (points[..., axis, None] - others[:, axis] for axis in (0, 1))
    return np.asarray(np.sqrt(x * x + y * y))


def score_run(
    folder: ColumnFolder, grid: tuple[int, int], parts: int, classes: Sequence[str | None]
) -> tuple[Floats, Scores, dict[str, Scores]]:
    """Thresholds (K,), the sums over all images, and those per class (in the order of first appearance).

    Args:
        folder: the run.
        grid: of the masks.
        parts: P.
        classes: of every row; None where it is not known.
    """
    limits = thresholds(folder)
    filters = len(limits)
    per_class: dict[str | None, Scores] = {}
    shapes = [tuple(line["map"]) for line in folder.index()]
    for row, name, shape in zip(rows(folder, grid[0] * grid[1]), classes, shapes, strict=True):
        if name not in per_class:
            per_class[name] = Scores(filters, parts, grid)
        per_class[name].update(row, row.peaks >= limits, shape)
    overall = Scores(filters, parts, grid)
    for scores in per_class.values():
        overall.add(scores)
    return limits, overall, {name: scores for name, scores in per_class.items() if name is not None}
