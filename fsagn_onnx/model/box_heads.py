"""Detectors whose graph gives a box and scores for every anchor: YOLO's heads, and boxes beside scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .classifier import words
from .detector import Detector, DetectorSearch
from .outputs import Output
from .score_value import ScoreValue, score_value

__all__ = ["STRIDES", "find_head", "find_pair", "grid_strides"]

STRIDES: Final = (4, 8, 16, 32, 64, 128)
PER_CELL: Final = (1, 2, 3)
SCORES: Final = frozenset({"score", "conf", "confidence", "prob", "class", "cls", "logit"})
OTHERS: Final = frozenset({"landmark", "landm", "keypoint", "kpt", "mask", "point", "angle", "ldm"})


@dataclass(frozen=True)
class _Head:
    """A reading of an output (N, anchors, numbers) or (N, numbers, anchors).

    Attributes:
        swapped: the anchors lie along the last axis.
        strides: of the maps whose cells the anchors are.
        per_cell: anchors in a cell.
        parts: (place, width, squashed by a sigmoid) along the axis of the numbers; empty where that is not known.
        width: how many numbers an anchor has.
        raw: nothing has decoded the boxes.
        box: the value that holds the boxes, or a part of them.
    """

    swapped: bool
    strides: tuple[int, ...]
    per_cell: int
    parts: tuple[tuple[int, int, bool], ...]
    width: int
    raw: bool
    box: str

    @property
    def halves(self) -> bool:
        """Whether centre and size are put together: what follows is the objectness with the classes, in one part."""
        return [width for _, width, _ in self.parts[:2]] == [2, 2]


def find_head(search: DetectorSearch, layout: str) -> Detector | None:
    """One output with a box and scores for every anchor.

    ``yolov5`` has three anchors in a cell and a factor "objectness" before the classes, ``yolox`` one and the factor,
    ``yolov8`` one and no factor.
    """
    for item in search.of_rank(3):
        if item.axis != 0 or not item.floating:
            continue
        for head in _readings(search, item):
            first = 4 if layout == "yolov8" else 5
            count = _count(search, head, first)
            if count is None or not _is(layout, head, forced=search.forced):
                continue
            axis, objectness = (1 if head.swapped else 2), (None if first == 4 else 4)
            grid = layout == "yolox" and head.raw
            return Detector(
                layout,
                {"predictions": item.name},
                corners="cxcywh",
                unit="grid" if grid else search.unit(head.box) if layout == "yolov8" else "pixels",
                swapped=head.swapped,
                objectness=objectness,
                columns=(0, first, first, None),
                classes=count,
                scores=score_value(search.trace, item.name, axis, first, count, objectness=objectness),
                suppress=True,
                reason=_reason(head, count),
            )
    return None


def _reason(head: _Head, count: int) -> str:
    classes = f"{count} class{'es' * (count != 1)}"
    if not head.per_cell:
        return f"four numbers of a box and {classes}"
    strides = ", ".join(map(str, head.strides))
    return f"{head.per_cell} box{'es' * (head.per_cell > 1)} in each cell of stride {strides}, {classes}"


def _readings(search: DetectorSearch, item: Output) -> Iterator[_Head]:
    shape = item.shape or ()
    for axis, swapped in ((1, True), (2, False)):
        width, anchors = shape[axis], shape[3 - axis]
        if width is None or width < 5:
            continue
        if search.forced and anchors is not None and anchors < width:
            continue
        per_cell, strides = (grid_strides(search.size, anchors) if anchors is not None else None) or (0, ())
        parts: list[tuple[int, int, bool]] = []
        start = 0
        columns = search.trace.columns(item.name, axis)
        for part in columns:
            if part.width is None:
                parts = []
                break
            parts.append((start, part.width, search.trace.squashed(part.value) is not None))
            start += part.width
        parts = parts if start == width and len(parts) > 1 else []
        if per_cell or search.forced or any(start == 4 and squashed for start, _, squashed in parts):
            box = columns[0].value
            yield _Head(swapped, strides, per_cell, tuple(parts), width, search.trace.raw(box), box)


def _count(search: DetectorSearch, head: _Head, first: int) -> int | None:
    """How many classes a head has; None where it cannot be one with ``first`` numbers before them."""
    for start, width, squashed in head.parts:
        if not squashed:
            continue
        if start == first:
            return width
        if start == 4 and first == 5 and width > 1 and head.halves:
            return width - 1
    labels = len(search.labels)
    if labels and head.width == first + labels:
        return labels
    if search.forced:
        return labels if labels and head.width > first + labels else head.width - first or None
    levels = len(head.strides) > 1 and not head.parts and head.width > first
    if levels and ((first == 4 and head.swapped) or (first == 5 and head.per_cell > 1 and not head.swapped)):
        return head.width - first
    return None


def _is(layout: str, head: _Head, *, forced: bool) -> bool:
    if layout == "yolox":
        return forced or head.per_cell == 1
    if head.raw and not forced:
        return False
    told = any(start == 4 and squashed for start, _, squashed in head.parts) and not head.halves
    return forced or (head.per_cell < 2 or told) == (layout == "yolov8")


def grid_strides(size: tuple[int, int], anchors: int) -> tuple[int, tuple[int, ...]] | None:
    """Anchors in a cell, and the strides of neighbouring maps whose cells they are; None where it cannot be.

    The longest run of maps is taken: 8,400 anchors of 640 x 640 pixels are the cells of strides 8, 16 and 32.
    """
    height, width = size
    cells = [-(-height // stride) * -(-width // stride) for stride in STRIDES]
    for length in range(len(STRIDES), 0, -1):
        for start in range(len(STRIDES) - length + 1):
            whole = sum(cells[start : start + length])
            if anchors >= whole and anchors % whole == 0 and anchors // whole in PER_CELL:
                return anchors // whole, STRIDES[start : start + length]
    return None


def find_pair(search: DetectorSearch, layout: str) -> Detector | None:
    """Boxes (N, anchors, 4) and scores (N, anchors, classes) in two outputs."""
    boxes = [o for o in search.of_rank(3, 4) if _is_boxes(o)]
    boxes = [o for o in boxes if search.forced or not search.trace.raw(o.name) or search.trace.squashed(o.name)]
    for box in boxes:
        anchors = (box.shape or (None, None))[1]
        for item in search.of_rank(2, 3):
            found = _scores(search, item, anchors)
            if item is box or found is None:
                continue
            scores, squash, background = found
            corners = search.trace.corners(box.name, len(box.shape or ()) - 1)
            centre = corners is False or (corners is None and search.trace.raw(box.name))
            return Detector(
                layout,
                {"boxes": box.name, "scores": item.name},
                corners="cxcywh" if centre else "xyxy",
                unit=search.unit(box.name),
                swapped=scores.axis is not None and item.shape is not None and item.shape[1] != anchors,
                classes=None if item.shape is None else 1 if len(item.shape) == 2 else _classes(item, anchors),
                background=background,
                first_label=1 if background == 0 and not search.has_background_label else 0,
                scores=scores,
                squash=squash,
                suppress=True,
                reason=f"boxes '{box.name}' beside scores '{item.name}'",
            )
    return None


def _is_boxes(item: Output) -> bool:
    shape = item.shape or ()
    plain = item.axis == 0 and item.floating and shape[-1] == 4 and not words(item.name) & OTHERS
    return plain and (len(shape) == 3 or shape[2] == 1) and shape[1] not in (None, 1)


def _classes(item: Output, anchors: int | None) -> int | None:
    _, one, other = item.shape or (None, None, None)
    return other if one == anchors else one


def _scores(search: DetectorSearch, item: Output, anchors: int | None) -> tuple[ScoreValue, str, int | None] | None:
    """The scores in an output beside boxes: their value, what is still to be done to them, and the background."""
    shape, said, trace = item.shape or (), words(item.name), search.trace
    if item.axis != 0 or not item.floating or anchors not in shape[1:] or said & OTHERS:
        return None
    count = 1 if len(shape) == 2 else _classes(item, anchors)
    axis = 2 if shape[1] == anchors else 1
    labels = len(search.labels)
    parts = trace.columns(item.name, axis) if len(shape) == 3 else []
    values = [part.value for part in parts] or [item.name]
    soft = all(trace.softened(value) is not None for value in values)
    bounded = all(trace.squashed(value) is not None for value in values)
    if not (soft or bounded or said & SCORES or (labels and count in (labels, labels + 1))):
        return None
    logits = not (soft or bounded) and trace.raw(item.name)
    exclusive = soft or (logits and bool(labels) and count == labels + 1)
    background = None
    if exclusive and count is not None and count > 1 and count != labels:
        background = count - 1 if logits else 0
    if exclusive and count == labels and search.has_background_label:
        background = 0
    if len(shape) == 2:
        value = ScoreValue(item.name, None, 0, 1, logits=logits)
    elif logits:
        value = ScoreValue(item.name, axis, 0, count, True, exclusive, None, background)
    else:
        value = score_value(trace, item.name, axis, 0, count, background=background)
    return value, ("softmax" if exclusive else "sigmoid") if logits else "none", background
