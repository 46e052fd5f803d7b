"""Detectors whose graph chooses the boxes: lists of boxes, scores and classes, rows, selected indices."""

from __future__ import annotations

from typing import Final

from .classifier import words
from .detector import WHOLE_NUMBERS, Detector, DetectorSearch
from .outputs import Output
from .score_value import chosen_score, score_value

__all__ = ["find_lists", "find_rows", "find_selected", "find_single_lists"]

BOXES: Final = frozenset({"box", "bbox", "rect"})
SCORES: Final = frozenset({"score", "conf", "confidence", "prob"})
CLASSES: Final = frozenset({"class", "cls", "label", "category"})
COUNTS: Final = frozenset({"num", "number", "count"})
ROWS: Final = {6: (0, 4, 5, None), 7: (1, 6, 5, 0)}
"""Numbers in a row -> places of box, score, class and image, where the graph does not tell: Ultralytics, YOLOv7."""


def find_lists(search: DetectorSearch, layout: str) -> Detector | None:
    """Lists with an axis of images: boxes (N, M, 4), scores (N, M), classes (N, M), perhaps how many of M count.

    TensorFlow's are named ``detection_...``, its classes are floating-point numbers that begin at 1, its boxes shares
    of the picture in the order y, x, y, x. All others give corners in pixels and classes of whole numbers.
    """
    boxes = [o for o in search.of_rank(3) if o.shape and o.shape[2] in (4, None) and "raw" not in words(o.name)]
    boxes = [o for o in boxes if words(o.name) & BOXES] or (boxes if search.forced else [])
    rows = [o for o in search.of_rank(2) if o.shape and o.shape[1] != 1]
    kinds = [o for o in rows if words(o.name) & CLASSES or o.dtype in WHOLE_NUMBERS]
    scores = [o for o in rows if o not in kinds and o.floating and (words(o.name) & SCORES or search.forced)]
    if not boxes or not scores or not kinds:
        return None
    if not search.forced and (layout == "tensorflow") != (kinds[0].floating and "detection" in words(boxes[0].name)):
        return None
    roles = {"boxes": boxes[0].name, "scores": scores[0].name, "classes": kinds[0].name}
    counts = [o for o in search.of_rank(1, 2) if o.name not in roles.values() and _is_count(o)]
    tensorflow = layout == "tensorflow"
    return Detector(
        layout,
        roles | ({"count": counts[0].name} if counts else {}),
        corners="yxyx" if tensorflow else "xyxy",
        unit="share" if tensorflow else search.unit(boxes[0].name),
        classes=len(search.labels) or None,
        first_label=1 if tensorflow and search.labels and not search.has_background_label else 0,
        scores=chosen_score(search.trace, scores[0].name, len(search.labels) or None),
        reason=f"lists of boxes '{boxes[0].name}', scores '{scores[0].name}' and classes '{kinds[0].name}'",
    )


def _is_count(item: Output) -> bool:
    shape = item.shape or ()
    return bool(words(item.name) & COUNTS) and (len(shape) == 1 or shape[1] == 1)


def find_single_lists(search: DetectorSearch, layout: str) -> Detector | None:
    """Lists for one image, as torchvision's detectors give them: boxes (M, 4), labels (M), scores (M)."""
    boxes = [o for o in search.of_rank(2) if o.floating and o.shape and o.shape[1] == 4 and o.axis is None]
    lines = [o for o in search.of_rank(1) if o.axis is None]
    kinds, scores = [o for o in lines if o.dtype in WHOLE_NUMBERS], [o for o in lines if o.floating]
    if len(boxes) != 1 or len(kinds) != 1 or len(scores) != 1:
        return None
    return Detector(
        layout,
        {"boxes": boxes[0].name, "scores": scores[0].name, "classes": kinds[0].name},
        unit=search.unit(boxes[0].name),
        classes=len(search.labels) or None,
        scores=chosen_score(search.trace, scores[0].name, None),
        reason="lists of boxes, labels and scores of one image",
    )


def find_selected(search: DetectorSearch, layout: str) -> Detector | None:
    """Indices (M, 3) of what a NonMaxSuppression kept (image, class, box), and what it chose among."""
    trace = search.trace
    for item in search.of_rank(2, 3):
        node = trace.maker(trace.behind(item.name))
        if item.dtype not in WHOLE_NUMBERS or node is None or node.op_type != "NonMaxSuppression":
            continue
        boxes = _same(search, node.input[0])
        scores = _same(search, node.input[1])
        if boxes is None or scores is None or boxes is scores:
            continue
        centre = any(a.name == "center_point_box" and a.i == 1 for a in node.attribute)
        inner = trace.shapes.get(node.input[1], ())
        return Detector(
            layout,
            {"selected": item.name, "boxes": boxes.name, "scores": scores.name},
            corners="cxcywh" if centre else "yxyx" if "yolonms" in boxes.name else "xyxy",
            unit=search.unit(boxes.name),
            swapped=scores.shape is not None and scores.shape[1:] == inner[1:],
            classes=inner[1] if len(inner) == 3 else None,
            scores=score_value(trace, node.input[1], 1),
            reason=f"'{item.name}' holds what a NonMaxSuppression selected",
        )
    return None


def _same(search: DetectorSearch, value: str) -> Output | None:
    """The output that holds the numbers of a value, in whatever order of its axes."""
    source = search.trace.behind(value)
    return next((o for o in search.of_rank(3) if o.floating and search.trace.behind(o.name) == source), None)


def find_rows(search: DetectorSearch, layout: str) -> Detector | None:
    """Rows of box, score and class: (N, M, 6); (M, 6), as Paddle gives them; (M, 7) with the image."""
    for item in search.of_rank(2, 3):
        shape, trace = item.shape or (), search.trace
        width = shape[-1]
        fits = item.floating and ((width == 6 and len(shape) == 3) or (width in ROWS and item.axis is None))
        if width is None or not fits or not (search.forced or trace.chosen(item.name)):
            continue
        widths = [part.width for part in trace.columns(item.name, len(shape) - 1)]
        if widths == [4, width - 4] and not search.forced:
            continue  # a number for each of several classes
        columns = _row_columns(search, item.name, len(shape) - 1, width)
        box, score, kind, _ = columns
        boxes = _column(search, item.name, len(shape) - 1, box)
        return Detector(
            layout,
            {"predictions": item.name},
            corners="cxcywh" if trace.squashed(boxes) is not None else "xyxy",  # of a DETR: centre and size as shares
            unit=search.unit(boxes),
            columns=columns,
            classes=len(search.labels) or None,
            scores=chosen_score(trace, item.name, len(search.labels) or None),
            reason=f"rows of {width} numbers: box from {box} on, score {score}, class {kind}",
        )
    return None


def _column(search: DetectorSearch, name: str, axis: int, place: int) -> str:
    """The value that holds the numbers of a row from a place on; the row itself where that is not known."""
    start = 0
    for part in search.trace.columns(name, axis):
        if start == place or part.width is None:
            return part.value if start == place else name
        start += part.width
    return name


def _row_columns(search: DetectorSearch, name: str, axis: int, width: int) -> tuple[int, int, int, int | None]:
    """Where box, score and class stand in a row: they are joined in the graph, and what counts is the class."""
    parts = [(part.width, search.trace.counted(part.value)) for part in search.trace.columns(name, axis)]
    if [counted for _, counted in parts] == [True, False, False] and width == 6 and parts[1][0] in (1, None):
        return 2, 1, 0, None
    if len(parts) == 1 and axis == 1 and width == 6 and "nms" in name:
        return 2, 1, 0, None
    four: int | None = None
    single: list[int] = []
    kinds: list[int] = []
    start = 0
    for size, counted in parts:
        if size == 4:
            four = start
        elif size == 1:
            (kinds if counted else single).append(start)
        start += size or 0
    if four is None or start != width or len(single) != 1 or len(kinds) != width - 5:
        return ROWS[width]
    return four, single[0], kinds[-1], kinds[0] if width == 7 else None
