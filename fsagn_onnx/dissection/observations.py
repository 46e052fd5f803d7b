"""The pass over the images: a row of masks, peaks and parts per image, in order, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Annotations, ImageParts, Labels
from ..data.annotations.parts import cell_coverage, largest
from ..errors import AnnotationError
from ..model.geometry import Geometry
from ..runs.column_folder import ColumnFolder, ColumnSpec
from ..runs.tapped_explainer import TappedExplainer
from ..runtime.classes import Classes
from ..runtime.filter_request import FilterRequest
from ..runtime.stream import DECODERS, Failure, Prepared, ordered_map, prepare

MAX_PARTS: Final = 24
"""Parts kept per image; the largest ones."""
LineAndRow: TypeAlias = tuple[dict[str, Any], dict[str, Any] | None]
"""An image's line of the index, and its row of the columns; None: it failed."""


@dataclass(frozen=True)
class DissectionPass:
    """What is collected.

    Attributes:
        tapped: gives masks and feature maps.
        classes: how the model's outputs are read.
        filters: ids of the filters.
        area: share of the grid's cells in every mask.
        annotations: of parts, or None.
        labels: of classes, or None.
        batch_size: images per pass.
        workers: passes at the same time.
    """

    tapped: TappedExplainer
    classes: Classes
    filters: tuple[int, ...]
    area: float
    annotations: Annotations | None = None
    labels: Labels | None = None
    batch_size: int = 8
    workers: int = 1
    part_numbers: dict[str, int] = field(default_factory=dict)


def mask_bits(area_rank: NDArray[np.floating], area: float) -> NDArray[np.uint8]:
    """Masks of exactly round(a h w) cells, at least one: ``(..., h, w)`` ranks -> packed ``(..., ceil(h w / 8))``.

    On the generator's grid ranks are i / (h w), so that a comparison cuts exactly.
    """
    cells = area_rank.shape[-1] * area_rank.shape[-2]
    kept = max(1, round(area * cells))
    flat = area_rank.reshape(*area_rank.shape[:-2], cells)
    return np.packbits(flat <= (kept + 0.5) / cells, axis=-1)


def unpack(bits: NDArray[np.uint8], cells: int) -> NDArray[np.bool_]:
    """The inverse of `mask_bits`: uint8 ``(..., bytes)`` -> bool ``(..., h w)``."""
    return np.unpackbits(bits, axis=-1, count=cells).astype(np.bool_)


def matched_iou(area_rank: NDArray[np.floating], parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of parts with masks of just their size, so that no part wins by being as large as the masks are.

    Args:
        area_rank: (K, h, w), ranks on the generator's grid.
        parts: (n, h w), share of each cell that a part covers.

    Returns:
        (K, n): |m & p| / |m | p| with the mask m of round(|p|) cells, at least one.
    """
    cells, sizes = parts.shape[1], parts.sum(axis=1)
    covered = np.flatnonzero(parts.any(axis=0))  # nothing else counts
    flat, parts = area_rank.reshape(len(area_rank), cells).take(covered, axis=1), parts[:, covered]
    found = np.empty((len(flat), len(parts)), dtype=np.float32)
    for n, (part, size) in enumerate(zip(parts, sizes.tolist(), strict=True)):
        kept = max(1, round(size))
        inter = (flat <= (kept + 0.5) / cells).astype(np.float32) @ part
        found[:, n] = inter / (kept + size - inter)
    return found


def dissection_columns(filters: int, grid: tuple[int, int], *, parts: bool) -> dict[str, ColumnSpec]:
    """The columns of a `dissect` run for K filters and a grid of h x w cells: type and shape of a row by name."""
    cells = grid[0] * grid[1]
    specs: dict[str, ColumnSpec] = {
        "masks": ("u1", (filters, (cells + 7) // 8)),
        "peaks": ("f4", (filters,)),
        "places": ("u2", (filters,)),
        "geometry": ("f8", (2, 4)),
    }
    if parts:
        specs |= {
            "part_ids": ("i4", (MAX_PARTS,)),
            "part_centres": ("f4", (MAX_PARTS, 2)),
            "part_cells": ("u1", (MAX_PARTS, cells)),
            "part_iou": ("f2", (MAX_PARTS, filters)),
        }
    return specs


def collect(folder: ColumnFolder, plan: DissectionPass, images: Iterable[Path]) -> Iterator[str | Failure]:
    """Take in the images that the folder does not hold yet, and write a row for each.

    Batches are cut by the position in the list, also when a run goes on, so that every image is computed in the same
    batch as in a run that was never interrupted.

    Yields:
        The path of every image, or its failure, in order; those that were there already too.
    """
    spec, size = plan.tapped.spec, plan.batch_size
    named = ((str(path), path) for path in images)
    start = folder.count - folder.count % size
    folder.require_same_images(islice(named, start))
    prepared = ordered_map(lambda item: prepare(item, spec, preview=False), named, DECODERS, size)

    def batches() -> Iterator[list[Prepared | Failure]]:
        while batch := list(islice(prepared, size)):
            yield batch

    def looked(batch: Sequence[Prepared | Failure]) -> list[LineAndRow]:
        return observed_rows(plan, batch)

    skip = folder.count - start
    try:
        for found in ordered_map(looked, batches(), plan.workers, plan.workers):
            folder.append(found[skip:])
            skip = 0
            for line, _ in found:
                error = line.get("error")
                yield line["path"] if error is None else Failure(line["path"], error)
    finally:
        prepared.close()


@dataclass(frozen=True, eq=False)
class _Answers:
    """What filters answer in a batch: ranks (N, K, h, w), masks (N, K, bytes), peaks and their cells (N, K), ..."""

    area_rank: NDArray[np.float32]
    masks: NDArray[np.uint8]
    peaks: NDArray[np.float32]
    places: NDArray[np.intp]
    finite: NDArray[np.bool_]
    map_shape: tuple[int, int]
    predicted: NDArray[np.intp] | None


def _answers(plan: DissectionPass, batch: Sequence[Prepared]) -> _Answers:
    seen = plan.tapped.run(np.stack([item.values for item in batch]), FilterRequest(plan.filters))
    rows, columns = seen.feature_map.shape[2:]
    every = len(plan.filters) == seen.feature_map.shape[1]
    chosen = seen.feature_map if every else seen.feature_map[:, list(plan.filters)]
    flat = chosen.reshape(*chosen.shape[:2], rows * columns)
    places = flat.argmax(axis=2)  # a NaN counts as the highest
    peaks = np.take_along_axis(flat, places[..., None], axis=2)[..., 0]
    finite = np.asarray(np.isfinite(flat).all(axis=(1, 2)))
    bits = mask_bits(seen.area_rank, plan.area)
    return _Answers(seen.area_rank, bits, peaks, places, finite, (rows, columns), plan.classes.winners(seen.outputs))


def observed_rows(plan: DissectionPass, batch: Sequence[Prepared | Failure]) -> list[LineAndRow]:
    """Line of the index and row of the columns of every image of a batch."""
    ready = [item for item in batch if isinstance(item, Prepared)]
    answers = _answers(plan, ready) if ready else None
    rows: list[LineAndRow] = []
    place = 0
    for item in batch:
        if isinstance(item, Failure) or answers is None:
            failed = item if isinstance(item, Failure) else Failure(item.name, "not computed")
            rows.append(({"path": failed.path, "error": failed.message}, None))
            continue
        rows.append(_row(plan, item, answers, place))
        place += 1
    return rows


def _row(plan: DissectionPass, item: Prepared, answers: _Answers, n: int) -> LineAndRow:
    if not answers.finite[n]:
        return {
            "path": item.name,
            "error": f"{item.name}: the layer's feature map is not finite (NaN or infinite)",
        }, None
    row: dict[str, Any] = {
        "masks": answers.masks[n],
        "peaks": answers.peaks[n],
        "places": answers.places[n],
        "geometry": _geometry_row(item.geometry),
    }
    try:
        found = None if plan.annotations is None else plan.annotations.find(item.name)
        label = _label(plan, item.name, found)
        if plan.annotations is not None:
            row |= _part_rows(plan.part_numbers, found, item.geometry, answers.area_rank[n])
    except AnnotationError as error:
        return {"path": item.name, "error": str(error)}, None
    line = {
        "path": item.name,
        "height": item.geometry.original[0],
        "width": item.geometry.original[1],
        "map": list(answers.map_shape),
        "label": label,
        "predicted": None if answers.predicted is None else int(answers.predicted[n]),
        "annotated": found is not None,
    }
    if found is not None and found.seed is not None:
        line["seed"] = found.seed
    return line, row


def _label(plan: DissectionPass, name: str, found: ImageParts | None) -> str | None:
    given = None if plan.labels is None else plan.labels.find(name)
    return given if given is not None else None if found is None else found.label


def _geometry_row(geometry: Geometry) -> NDArray[np.float64]:
    """(2, 4): scale and shift to the original along x and y, and the sizes (H0, W0), (H, W)."""
    (scale_x, _, shift_x), (_, scale_y, shift_y) = geometry.matrix
    return np.array([[scale_x, shift_x, scale_y, shift_y], [*geometry.original, *geometry.size]])


def _part_rows(
    numbers: dict[str, int], found: ImageParts | None, geometry: Geometry, area_rank: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """The parts of an image on the grid, and how the filters (K, h, w) follow them."""
    grid = (area_rank.shape[1], area_rank.shape[2])
    ids = np.full(MAX_PARTS, -1, dtype=np.int32)
    centres = np.full((MAX_PARTS, 2), np.nan, dtype=np.float32)
    cells = np.zeros((MAX_PARTS, grid[0] * grid[1]), dtype=np.uint8)
    iou = np.zeros((MAX_PARTS, len(area_rank)), dtype=np.float16)
    parts = {} if found is None else largest(found.masks(geometry.original), MAX_PARTS)
    if parts:
        pixels, sizes = np.stack([mask for mask, _ in parts.values()]), [size for _, size in parts.values()]
        ids[: len(parts)] = [numbers[name] for name in parts]
        centres[: len(parts)] = _middles(pixels, sizes)
        covered = cell_coverage(pixels, geometry, grid).reshape(len(parts), -1)
        cells[: len(parts)] = np.rint(255 * covered).astype(np.uint8)
        iou[: len(parts)] = matched_iou(area_rank, covered).T
    return {"part_ids": ids, "part_centres": centres, "part_cells": cells, "part_iou": iou}


def _middles(pixels: NDArray[np.bool_], sizes: Sequence[int]) -> NDArray[np.float64]:
    """(n, 2) middles (x, y) of masks (n, H0, W0) with so many pixels."""
    count, height, width = pixels.shape
    numbers = pixels.view(np.uint8)
    across = [cv2.reduce(mask, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0] for mask in numbers]
    down = cv2.reduce(numbers.reshape(-1, width), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).reshape(count, height)
    sums = np.stack([np.stack(across) @ (np.arange(width) + 0.5), down @ (np.arange(height) + 0.5)], axis=1)
    return np.asarray(sums / np.asarray(sizes)[:, None])
