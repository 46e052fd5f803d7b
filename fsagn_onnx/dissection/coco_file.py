"""The masks of the reference pictures as a COCO file, which annotation tools open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..model.geometry import Geometry
from ..runs.column_folder import ColumnFolder
from .dissection import FilterRow
from .scores import ImageRow, row_at

MOST_MASKS: Final = 2000
"""Masks in one file; with many filters each gets fewer pictures."""


def geometry_of(row: ImageRow) -> Geometry:
    """The geometry that a row stores."""
    (scale_x, shift_x, scale_y, shift_y), (height, width, input_height, input_width) = row.geometry
    matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
    return Geometry((int(height), int(width)), (int(input_height), int(input_width)), matrix)


def original_mask(row: ImageRow, k: int, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """The cells of a filter's mask on the original image, bool (H0, W0)."""
    geometry = geometry_of(row)
    cells = row.masks[k].reshape(grid).astype(np.uint8)
    pixels = cv2.resize(cells, geometry.size[::-1], interpolation=cv2.INTER_NEAREST)
    return geometry.mask_to_original(pixels.astype(np.bool_))


def write_coco(
    folder: ColumnFolder, filters: Sequence[FilterRow], strongest: Sequence[NDArray[np.int64]], grid: tuple[int, int]
) -> None:
    """Write ``masks.json``: a category per filter, an annotation per filter and reference picture."""
    per_filter = max(1, MOST_MASKS // max(len(filters), 1))
    wanted: dict[int, list[int]] = {}
    for k, ids in enumerate(strongest):
        for index in ids[:per_filter].tolist():
            wanted.setdefault(index, []).append(k)
    index_lines = {number: line for number, line in enumerate(folder.index()) if number in wanted}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in sorted(wanted):
        line = index_lines[number]
        images.append({"id": number + 1, "file_name": line["path"], "height": line["height"], "width": line["width"]})
        row = row_at(folder, number, grid[0] * grid[1])
        for k in wanted[number]:
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **_annotation(row, k, grid)})
            annotations[-1]["category_id"] = filters[k].filter + 1
    categories = [
        {"id": row.filter + 1, "name": _category(row), "supercategory": row.part or "filter"} for row in filters
    ]
    folder.write("masks.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def _category(row: FilterRow) -> str:
    known = row.name or row.part
    return f"filter {row.filter}: {known}" if known else f"filter {row.filter}"


def _annotation(row: ImageRow, k: int, grid: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask as rle

    encoded = rle.encode(np.asfortranarray(original_mask(row, k, grid).astype(np.uint8)))
    return {
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
        "area": float(rle.area(encoded)),
        "bbox": [float(value) for value in rle.toBbox(encoded)],
        "iscrowd": 1,
    }
