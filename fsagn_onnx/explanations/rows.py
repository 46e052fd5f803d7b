"""One row per picture and filter: the Parquet dataset that `explain` writes on one machine and on many.

A row is of one `kind`: ``filter``, ``decision`` (the evidence for a class that was asked about), or ``picture`` (one
that has neither). Rows of a picture stand together, filters first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..model.input_spec import Geometry
from ..runtime.explanation import Explanation
from ..runtime.masks import Mask, pixel_mask

FILTER, DECISION, PICTURE = "filter", "decision", "picture"
FOUND: Final = ("heads", "detections", "segments")
"""Members of a line that stand as JSON in `details` of a picture's first row."""
MEASURED: Final = ("support", "kept", "removed", "control")
"""Members of an evidence that stand as JSON in `details` of its row."""
COLUMNS: Final[dict[str, str]] = {
    "number": "int64", "path": "string", "sha256": "string", "height": "int32", "width": "int32",
    "class_index": "int32", "class_label": "string", "score": "float64",
    "kind": "string", "filter": "int32", "decision_class": "int32", "decision_label": "string", "decision": "float64",
    "peak": "float64", "area": "float64", "retention_predicted": "float64", "retention_measured": "float64",
    "contribution": "float64", "share": "float64", "part": "string",
    "box_x0": "int32", "box_y0": "int32", "box_x1": "int32", "box_y1": "int32",
    "centroid_x": "float64", "centroid_y": "float64",
    "mask": "list", "mask_height": "int32", "mask_width": "int32",
    "scale_x": "float64", "shift_x": "float64", "scale_y": "float64", "shift_y": "float64",
    "details": "string",
}  # fmt: skip
"""Columns and their types; docs/reference/results.md says what they hold."""

Row = dict[str, Any]


@cache
def row_schema() -> Any:
    """The schema of the dataset, a `pyarrow.Schema`."""
    import pyarrow as arrow

    types = {name: arrow.list_(arrow.uint32()) if kind == "list" else arrow.type_for_alias(kind)
             for name, kind in COLUMNS.items()}  # fmt: skip
    return arrow.schema(list(types.items()))


def mask_lengths(mask: Mask) -> list[int]:
    """A mask as COCO's uncompressed run lengths: column by column, starting with the number of zeros.

    Args:
        mask: bool (H, W).

    Returns:
        Lengths of runs of False and True in turn; their sum is H W.
    """
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths: list[int] = np.diff(edges, prepend=0, append=mask.size).tolist()
    return lengths


def mask_of(row: Mapping[str, Any], *, original: bool = True) -> Mask:
    """The mask of a row.

    Args:
        row: with the columns ``mask``, ``mask_height``, ``mask_width`` and, for ``original``, those of its place.
        original: on the original picture; else on the model's input.

    Returns:
        bool (H0, W0), or (H, W).

    Example:
        >>> row = {"mask": [1, 2, 1], "mask_height": 2, "mask_width": 2}
        >>> mask_of(row, original=False).tolist()
        [[False, True], [True, False]]
    """
    size = int(row["mask_height"]), int(row["mask_width"])
    lengths = np.asarray(row["mask"], dtype=np.int64)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask: Mask = flat.reshape(size, order="F")
    if not original:
        return mask
    matrix = np.array([[row["scale_x"], 0, row["shift_x"]], [0, row["scale_y"], row["shift_y"]]], dtype=np.float64)
    return Geometry((int(row["height"]), int(row["width"])), size, matrix).mask_to_original(mask)


def text_of(path: str) -> str:
    """A path as text that every reader takes: bytes that are no UTF-8 are spelled out."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def picture_rows(number: int, sha256: str | None, explanation: Explanation) -> Iterator[Row]:
    """The rows of one picture.

    Args:
        number: its place in the list of pictures, from 0.
        sha256: of its file, in hexadecimal; None where it is not known.
        explanation: what was found.
    """
    ranks = [found.area_rank for found in (*explanation.filters, *explanation.evidence)]
    yield from line_rows(number, sha256, {"path": explanation.name, **explanation.to_dict()}, ranks,
                         explanation.geometry)  # fmt: skip


def line_rows(
    number: int, sha256: str | None, line: Mapping[str, Any], ranks: Iterable[NDArray[np.floating]], geometry: Geometry
) -> Iterator[Row]:
    """The rows of one line of ``explanations.jsonl``; ``ranks`` are of its filters, then of its evidence."""
    answer = line["predictions"][0] if line["predictions"] else {}
    evidence = line.get("evidence", [])
    scale_x, shift_x, scale_y, shift_y = geometry.matrix[[0, 0, 1, 1], [0, 2, 1, 2]].tolist()
    common = {
        "number": number, "path": text_of(line["path"]), "sha256": sha256,
        "height": line["height"], "width": line["width"],
        "class_index": answer.get("index"), "class_label": answer.get("label"), "score": answer.get("score"),
    }  # fmt: skip
    place = {
        "mask_height": geometry.size[0], "mask_width": geometry.size[1],
        "scale_x": scale_x, "shift_x": shift_x, "scale_y": scale_y, "shift_y": shift_y,
    }  # fmt: skip
    details = {name: line[name] for name in FOUND if line.get(name) is not None}
    rows = [{"kind": FILTER, "filter": item["id"], **_about(evidence[0] if evidence else None), **_plain(item)}
            for item in line["filters"]]  # fmt: skip
    for item in evidence:
        told = {name: item[name] for name in MEASURED if item.get(name) is not None}
        rows.append({"kind": DECISION, **_about(item), "details": _json(told), **_located(item)})
    for row, item, rank in zip(rows, (*line["filters"], *evidence), ranks, strict=True):
        row |= {**common, **place, "mask": mask_lengths(pixel_mask(rank, item["area"], geometry.size))}
    if not rows:
        rows = [{"kind": PICTURE, **common}]
    if details:
        rows[0]["details"] = _json({**details, **json.loads(rows[0].get("details") or "{}")})
    yield from rows


def _json(members: Mapping[str, Any]) -> str | None:
    return json.dumps(members, allow_nan=False) if members else None


def _about(evidence: Mapping[str, Any] | None) -> Row:
    """The class that contributions are about."""
    if evidence is None:
        return {}
    return {name: evidence[key] for name, key in
            (("decision_class", "class"), ("decision_label", "label"), ("decision", "decision"))}  # fmt: skip


def _plain(item: Mapping[str, Any]) -> Row:
    return {"peak": item["peak"], **{name: item.get(name) for name in ("contribution", "share", "part")},
            **_located(item)}  # fmt: skip


def _located(item: Mapping[str, Any]) -> Row:
    box, centroid = item["box"] or (None,) * 4, item["centroid"] or (None,) * 2
    return {
        "area": item["area"],
        "retention_predicted": item["retention"]["predicted"], "retention_measured": item["retention"]["measured"],
        **dict(zip(("box_x0", "box_y0", "box_x1", "box_y1"), box, strict=True)),
        **dict(zip(("centroid_x", "centroid_y"), centroid, strict=True)),
    }  # fmt: skip


def lines_of(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Rows back as lines of ``explanations.jsonl``, as far as they tell: one answer, no ranks.

    Args:
        rows: those of a picture together.
    """
    for _, group in groupby(rows, key=lambda row: row["number"]):
        found = list(group)
        first = found[0]
        label = {"index": first["class_index"], "label": first["class_label"], "score": first["score"]}
        line: dict[str, Any] = {name: first[name] for name in ("path", "height", "width")}
        line["predictions"] = [] if first["class_index"] is None else [label]
        line["filters"] = [_entry(row) for row in found if row["kind"] == FILTER]
        decisions = [row for row in found if row["kind"] == DECISION]
        if decisions:
            line["evidence"] = [
                {"class": row["decision_class"], "label": row["decision_label"], "decision": row["decision"],
                 **_place(row)} for row in decisions
            ]  # fmt: skip
        yield line


def _entry(row: Row) -> dict[str, Any]:
    decided = {} if row["contribution"] is None else {name: row[name] for name in ("contribution", "share")}
    return {"id": row["filter"], "peak": row["peak"], **_place(row), **decided}


def _place(row: Row) -> dict[str, Any]:
    box = [row[name] for name in ("box_x0", "box_y0", "box_x1", "box_y1")]
    centroid = [row["centroid_x"], row["centroid_y"]]
    return {
        "area": row["area"],
        "retention": {"predicted": row["retention_predicted"], "measured": row["retention_measured"]},
        "box": None if None in box else box,
        "centroid": None if None in centroid else centroid,
    }
