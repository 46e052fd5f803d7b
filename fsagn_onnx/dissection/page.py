"""The report of `dissect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data.images import read_image
from ..errors import FsagnError
from ..report.picture import jpeg
from ..report.sheet import base64, framed, record, sheet
from ..runs.column_folder import ColumnFolder
from ..runtime.drawing.typeface import printable
from ..runtime.stream import reduced
from .coco_file import geometry_of
from .dissection import Dissection, FilterRow
from .scores import row_at

MAX_PICTURES: Final = 600
"""Reference pictures in one page: about 4 MB."""
ATLAS_PARTS: Final = 30
"""Parts that get a column of the atlas: those that most filters stand for."""
TOP_PARTS: Final = 12
"""Parts listed on a filter's own page."""
EDGE: Final = 200


def write_dissection_page(
    folder: ColumnFolder, dissection: Dissection, strongest: Sequence[NDArray[np.int64]], grid: tuple[int, int]
) -> None:
    """Write ``report.html`` of a `dissect` run.

    Args:
        folder: the run.
        dissection: its result.
        strongest: per filter the rows of its reference pictures, strongest first.
        grid: of the masks.
    """
    chosen = _chosen(strongest)
    pictures, places = _pictures(folder, dissection, chosen, grid)
    atlas = _atlas_parts(dissection)
    facts = {
        "layer": dissection.layer,
        "filters": str(len(dissection.filters)),
        "images": str(dissection.images),
        "annotated": str(dissection.annotated),
    }
    frame = framed(
        "dissect",
        "What the filters stand for",
        dissection.layer,
        lead=(
            "Which object part each filter of the layer follows over the whole set of images, and how surely."
            if dissection.parts
            else "In which pictures each filter of the layer is strongest, where it looks there, and which are alike."
        ),
        facts=facts,
        files="filters.csv, filters.parquet, filters.jsonl and masks.json",
        note="All figures are in filters.parquet, all reference masks in masks.json.",
        about={"parts": atlas, "grid": list(grid), "images": pictures, "summary": dissection.summary},
    )
    masks = _masks(folder, strongest, places, grid)
    lines = (record(str(row.filter), _filter(row, atlas, masks[k])) for k, row in enumerate(dissection.filters))
    folder.write("report.html", sheet(frame, lines))


def _chosen(strongest: Sequence[NDArray[np.int64]]) -> list[int]:
    """Rows of reference pictures: every filter's first, then every filter's second, ... as far as the page goes."""
    chosen: dict[int, None] = {}
    for place in range(max((len(ids) for ids in strongest), default=0)):
        for ids in strongest:
            if place < len(ids) and len(chosen) < MAX_PICTURES:
                chosen[int(ids[place])] = None
    return sorted(chosen)


def _pictures(
    folder: ColumnFolder, dissection: Dissection, chosen: Sequence[int], grid: tuple[int, int]
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """The pictures as the script takes them, and row -> place in the list."""
    wanted = set(chosen)
    pictures: list[dict[str, Any]] = []
    places: dict[int, int] = {}
    for number, line in enumerate(folder.index()):
        if number not in wanted:
            continue
        try:
            image = read_image(line["path"])
        except FsagnError:
            continue  # it was there when the run looked at it; the page does without
        geometry = geometry_of(row_at(folder, number, grid[0] * grid[1]))
        (scale_x, _, shift_x), (_, scale_y, shift_y) = geometry.matrix.tolist()
        places[number] = len(pictures)
        pictures.append(
            {
                "name": printable(line["path"]),
                "size": list(geometry.original),
                "input": list(geometry.size),
                "affine": [scale_x, shift_x, scale_y, shift_y],
                "picture": jpeg(reduced(image, EDGE), 78),
            }
        )
    return pictures, places


def _masks(
    folder: ColumnFolder, strongest: Sequence[NDArray[np.int64]], places: Mapping[int, int], grid: tuple[int, int]
) -> list[list[list[Any]]]:
    """Per filter [place of the picture, packed mask] of its reference pictures."""
    found: list[dict[int, str]] = [{} for _ in strongest]
    wanted: dict[int, list[int]] = {}
    for k, ids in enumerate(strongest):
        for index in ids.tolist():
            if index in places:
                wanted.setdefault(index, []).append(k)
    for index, filters in wanted.items():
        row = row_at(folder, index, grid[0] * grid[1])
        for k in filters:
            found[k][index] = base64(np.packbits(row.masks[k]).tobytes())
    return [
        [[places[index], found[k][index]] for index in ids.tolist() if index in places]
        for k, ids in enumerate(strongest)
    ]


def _atlas_parts(dissection: Dissection) -> list[str]:
    counts = dissection.summary.get("named_per_part", {})
    return sorted(dissection.parts, key=lambda part: (-counts.get(part, 0), part))[:ATLAS_PARTS]


def _filter(row: FilterRow, atlas: Sequence[str], refs: list[list[Any]]) -> dict[str, Any]:
    ranked = sorted(row.parts, key=lambda part: -(row.parts[part]["matched_iou"] or 0))[:TOP_PARTS]
    members = row.to_dict()
    del members["parts"], members["references"]
    return {
        **members,
        "iou": [row.parts[part]["matched_iou"] for part in atlas],
        "top": [{"part": part, **row.parts[part]} for part in ranked],
        "refs": refs,
    }
