"""The table filters x parts: sums over the images of a run, slice by slice, and the metrics out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .collect import unpack
from .columns import SLICE_BYTES
from .folder import RunFolder

Floats = NDArray[np.float64]

ACTIVE_SHARE: Final = 0.5
"""A filter is active in an image whose peak reaches this share of the filter's strong answer."""
STRONG: Final = 0.99
"""Quantile of a filter's peaks over the images that counts as its strong answer."""
DETECTOR: Final = 0.04
"""Network Dissection calls a filter a detector of a part from this union IoU on (Bau et al. 2017, section 3.1)."""
LOCATED: Final = 0.2
"""Per-image IoU that counts as located (Zhang, Wu & Zhu 2018, section 5.2.1)."""


def thresholds(folder: RunFolder) -> Floats:
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
class Parts:
    """The annotated parts of one image on the grid.

    Attributes:
        ids: part numbers (n,), distinct.
        cells: float32 (n, cells), share of each cell that the part covers.
        centres: (n, 2), (x, y) in pixels of the original.
    """

    ids: NDArray[np.int32]
    cells: NDArray[np.float32]
    centres: Floats


@dataclass(frozen=True, eq=False)
class Row:
    """What is known of one image: masks (K, cells), peaks (K,), peak cells (K,), geometry (2, 4), its parts."""

    masks: NDArray[np.bool_]
    peaks: NDArray[np.float32]
    places: NDArray[np.int64]
    geometry: Floats
    parts: Parts | None


def rows(folder: RunFolder, cells: int) -> Iterator[Row]:
    """Every image of a run, in order, at flat memory."""
    columns = folder.columns
    widest = max(column.row_bytes for column in columns.values()) + 8 * columns["peaks"].shape[0]
    step = max(1, SLICE_BYTES // (9 * widest))
    for start in range(0, folder.rows, step):
        stop = min(start + step, folder.rows)
        read = {name: column.read(start, stop) for name, column in columns.items()}
        for n in range(stop - start):
            yield _row({name: values[n] for name, values in read.items()}, cells)


def row_at(folder: RunFolder, index: int, cells: int) -> Row:
    """One image of a run."""
    return _row({name: column.row(index) for name, column in folder.columns.items()}, cells)


def _row(values: dict[str, NDArray[Any]], cells: int) -> Row:
    parts = None
    if "part_ids" in values:
        there = values["part_ids"] >= 0
        if there.any():
            parts = Parts(
                values["part_ids"][there],
                values["part_cells"][there].astype(np.float32) / np.float32(255),
                values["part_centres"][there].astype(np.float64),
            )
    return Row(
        unpack(values["masks"], cells),
        values["peaks"],
        values["places"].astype(np.int64),
        values["geometry"],
        parts,
    )


def overlap(masks: NDArray[np.bool_], cells: NDArray[np.float32]) -> tuple[Floats, Floats, Floats]:
    """Intersection (K, n), mask size (K,) and part size (n,) in cells, of masks (K, cells) with parts (n, cells)."""
    kept = masks.astype(np.float32)
    return (
        np.asarray(kept @ cells.T, dtype=np.float64),
        kept.sum(axis=1).astype(np.float64),
        cells.sum(axis=1).astype(np.float64),
    )


class Scores:
    """Sums for K filters and P parts over the labelled images, and what they say.

    Args:
        filters: K.
        parts: P.
        grid: (h, w) of the masks.
    """

    def __init__(self, filters: int, parts: int, grid: tuple[int, int]) -> None:
        shape = (filters, parts)
        rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
        self._middles = np.stack([columns + 0.5, rows + 0.5], axis=1) / (grid[1], grid[0])  # of the cells, in 0..1
        self.images = 0
        self.active = np.zeros(filters)
        self.labelled = np.zeros(parts)
        self.both = np.zeros(shape)  # labelled images in which the filter is active
        self._sums = {name: np.zeros(shape) for name in ("inter", "union", "image_iou", "share", "located", "pointed")}
        self._missed = np.zeros(shape)  # part cells in labelled images in which the filter is not active
        self._distance = {name: np.zeros((2, *shape)) for name in ("mask", "peak")}  # sums of d and d²

    def update(self, row: Row, active: NDArray[np.bool_], map_shape: tuple[int, int]) -> None:
        """Add one image; ``active`` (K,) says where the filters answer."""
        self.images += 1
        self.active += active
        if row.parts is None:
            return
        ids, lit = row.parts.ids, np.flatnonzero(active)
        inter, mask, part = overlap(row.masks, row.parts.cells)
        self.labelled[ids] += 1
        self._missed[:, ids] += np.where(active[:, None], 0, part[None])
        if not lit.size:
            return
        at = np.ix_(lit, ids)
        inter, mask = inter[lit], mask[lit]
        union = mask[:, None] + part[None] - inter
        iou = inter / np.maximum(union, 1e-9)
        kept = row.masks[lit]
        middles = kept.astype(np.float32) @ self._middles.astype(np.float32) / np.maximum(mask, 1)[:, None]
        mask_centres, peak_centres = _centres(row, lit, middles, map_shape)
        added = {
            "inter": inter,
            "union": union,
            "image_iou": iou,
            "share": inter / np.maximum(mask, 1)[:, None],
            "located": iou > LOCATED,
            "pointed": self._pointed(kept, middles, row.parts.cells),
        }
        self.both[at] += 1
        for name, values in added.items():
            self._sums[name][at] += values
        diagonal = float(np.hypot(*row.geometry[1, :2]))
        for name, centres in (("mask", mask_centres), ("peak", peak_centres)):
            distance = np.linalg.norm(centres[:, None] - row.parts.centres[None], axis=2) / diagonal
            self._distance[name][0][at] += distance
            self._distance[name][1][at] += distance**2

    def _pointed(self, kept: NDArray[np.bool_], middles: Floats, cells: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether the masks' middles (the kept cell next to the centroid) lie on the parts, (lit, n)."""
        away = ((self._middles[None] - middles[:, None]) ** 2).sum(axis=2)
        nearest = np.where(kept, away, np.inf).argmin(axis=1)
        return cells[:, nearest].T >= 0.5

    def compute(self) -> dict[str, Floats]:
        """The metrics, each (K, P); NaN where a filter is active in no image that has the part.

        ``iou``: union over all images labelled for the part, masks only where the filter is active (Network
        Dissection). ``image_iou``: mean over the images where it is active. ``located``: share of these with IoU > .2.
        ``share``: of the mask that lies on the part. ``pointed``: the mask's middle lies on the part (pointing game).
        ``instability`` and ``peak_instability``: standard deviation over images of the distance between the part's
        middle and the mask's centroid (the activation peak), in image diagonals.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            per_image = {
                name: np.where(self.both > 0, self._sums[name] / self.both, np.nan)
                for name in ("image_iou", "located", "share", "pointed")
            }
            found = {"iou": self._sums["inter"] / (self._sums["union"] + self._missed), **per_image}
            for name, column in (("mask", "instability"), ("peak", "peak_instability")):
                first, second = self._distance[name]
                mean = first / self.both
                spread = np.sqrt(np.maximum(second / self.both - mean**2, 0))
                found[column] = np.where(self.both > 1, spread, np.nan)
        found["iou"] = np.where(self.both > 0, found["iou"], np.nan)
        return found

    def entropy(self) -> Floats:
        """How the filter's masks spread over the parts, (K,): -Σ s log s / log P of the shares s, 0 one part, 1 all."""
        share = np.nan_to_num(self.compute()["share"])
        total = share.sum(axis=1, keepdims=True)
        s = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        logs = np.log(s, out=np.zeros_like(s), where=s > 0)
        spread = -(s * logs).sum(axis=1) / max(np.log(max(share.shape[1], 2)), 1e-9)
        return np.where(total[:, 0] > 0, spread, np.nan)


def _centres(row: Row, lit: NDArray[np.intp], middles: Floats, map_shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Centroids of masks, and places of the activation peaks, (lit, 2) in pixels of the original."""
    (scale_x, shift_x, scale_y, shift_y), (_, _, height, width) = row.geometry
    at_row, at_column = np.divmod(row.places[lit], map_shape[1])
    peak = np.stack([(at_column + 0.5) / map_shape[1], (at_row + 0.5) / map_shape[0]], axis=1)
    scale, shift = np.array([width * scale_x, height * scale_y]), np.array([shift_x, shift_y])
    return middles * scale + shift, peak * scale + shift


def score_run(
    folder: RunFolder, grid: tuple[int, int], parts: int, classes: Sequence[str | None]
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
    overall = Scores(filters, parts, grid)
    per_class: dict[str, Scores] = {}
    shapes = [tuple(line["map"]) for line in folder.index()]
    for row, name, shape in zip(rows(folder, grid[0] * grid[1]), classes, shapes, strict=True):
        active = row.peaks >= limits
        overall.update(row, active, shape)
        if name is not None:
            if name not in per_class:
                per_class[name] = Scores(filters, parts, grid)
            per_class[name].update(row, active, shape)
    return limits, overall, per_class
