"""From the numbers of a detector to boxes in the picture: decoded, suppressed, sorted."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..model.box_heads import grid_strides
from ..model.detector import Detector
from ..model.geometry import Geometry
from .classes import Classes, Outputs
from .findings import Detection

__all__ = ["LEAST_SCORE", "MOST_BOXES", "find_detections"]

Floats = NDArray[np.float64]

LEAST_SCORE: Final = 0.25
"""Boxes of a lower score are not given."""
MOST_BOXES: Final = 100
"""Boxes given per image: the best ones."""
OVERLAP: Final = 0.45
"""Of two boxes of one class whose intersection over union is larger, only the better one is given."""
CANDIDATES: Final = 3000
"""Boxes that go into the suppression: the best ones."""


def find_detections(classes: Classes, outputs: Outputs, n: int, geometry: Geometry) -> tuple[Detection, ...] | None:
    """The boxes that a detector finds in image ``n`` of a pass, best first; None where the model has no known boxes.

    Args:
        classes: how the model's outputs are read.
        outputs: of the pass, by name.
        n: which image.
        geometry: from the model's input to the picture.

    Returns:
        At most `MOST_BOXES` of a score of at least `LEAST_SCORE`, clipped to the picture.
    """
    detector = classes.detector
    if detector is None or any(name not in outputs for name in detector.roles.values()):
        return None
    parts = {role: _of_image(classes, name, outputs[name], n) for role, name in detector.roles.items()}
    decoded = _decoded(detector, parts, n, geometry)
    if decoded is None:
        return ()
    boxes, scores, kinds = decoded
    good = np.isfinite(boxes).all(axis=1) & (scores >= LEAST_SCORE)
    boxes, scores, kinds = boxes[good], scores[good], kinds[good]
    order = np.argsort(-scores, kind="stable")[:CANDIDATES]
    boxes, scores, kinds = _corners(detector, boxes[order], geometry), scores[order], kinds[order]
    if detector.suppress and len(boxes):
        kept = _suppressed(boxes, scores, kinds)
        boxes, scores, kinds = boxes[kept], scores[kept], kinds[kept]
    height, width = geometry.original
    seen = np.clip(geometry.points_to_original(boxes.reshape(-1, 2)), 0, (width, height)).reshape(-1, 4)
    inside = (seen[:, 2] > seen[:, 0]) & (seen[:, 3] > seen[:, 1])
    names = _names(detector, classes.labels)
    return tuple(
        Detection(kind, names.get(kind), score, (x0, y0, x1, y1))
        for kind, score, (x0, y0, x1, y1) in zip(
            kinds[inside].tolist(), scores[inside].tolist(), seen[inside].tolist(), strict=True
        )
    )[:MOST_BOXES]


def _decoded(
    detector: Detector, parts: dict[str, NDArray[Any]], n: int, geometry: Geometry
) -> tuple[Floats, Floats, NDArray[np.int64]] | None:
    """Boxes (M, 4) as the layout has them, their scores (M,) and classes (M,); None where the numbers do not fit."""
    if "predictions" in parts:
        return _predictions(detector, parts, n, geometry)
    return _lists(detector, parts, n) if "boxes" in parts else _levels(detector, parts, geometry)


def _levels(
    detector: Detector, parts: dict[str, NDArray[Any]], geometry: Geometry
) -> tuple[Floats, Floats, NDArray[np.int64]] | None:
    """PicoDet: corners from the cells' centres and the mean distances to the sides."""
    boxes, scores = [], []
    for role in (role for role in parts if role.startswith("boxes")):
        stride, sides = int(role.removeprefix("boxes")), _table(parts[role])
        row, column = np.mgrid[: -(-geometry.size[0] // stride), : -(-geometry.size[1] // stride)]
        if len(sides) != row.size or sides.shape[1] % 4:
            return None
        bins = sides.reshape(len(sides), 4, -1)
        powers = np.exp(bins - bins.max(axis=2, keepdims=True))
        away = (powers * np.arange(bins.shape[2])).sum(axis=2) / powers.sum(axis=2)
        centre = np.stack([column.ravel(), row.ravel()], axis=1) + 0.5
        boxes.append(np.concatenate([centre - away[:, :2], centre + away[:, 2:]], axis=1) * stride)
        scores.append(_table(parts[role.replace("boxes", "scores")]))
    if not boxes or any(len(one) != len(other) for one, other in zip(boxes, scores, strict=True)):
        return None
    best, kinds = _best(np.concatenate(scores), detector)
    return np.concatenate(boxes), best, kinds


def _names(detector: Detector, labels: tuple[str, ...] | None) -> dict[int, str]:
    """Class -> name; none where there are as many labels as belong to something else."""
    given, count = labels or (), detector.classes
    if count is not None and detector.layout not in ("torchvision", "tensorflow", "efficientnms", "end2end"):
        first = detector.first_label if len(given) == count - 1 else 0
        ends = len(given) == count - 1 and detector.background == count - 1
        return dict(enumerate(given, first)) if len(given) == count - first or ends else {}
    return dict(enumerate(given, detector.first_label))


def _of_image(classes: Classes, name: str, values: NDArray[Any], n: int) -> NDArray[Any]:
    axis = classes.classifier.axis(name)
    return values if axis is None or axis >= values.ndim else values.take(n, axis=axis)


def _lists(
    detector: Detector, parts: dict[str, NDArray[Any]], n: int
) -> tuple[Floats, Floats, NDArray[np.int64]] | None:
    boxes = _rows(parts["boxes"], 4)
    if boxes is None:
        return None
    if "classes" in parts:
        scores, kinds = parts["scores"].astype(np.float64).ravel(), _whole(parts["classes"])
        count = min(len(boxes), len(scores), len(kinds))
        if "count" in parts and parts["count"].size:
            count = min(count, max(0, int(_whole(parts["count"])[0])))
        return boxes[:count], scores[:count], kinds[:count]
    table = _table(parts["scores"])
    table = table.T if detector.swapped else table
    if len(table) != len(boxes):
        return None
    if "selected" not in parts:
        scores, kinds = _best(table, detector)
        return boxes, scores, kinds
    chosen = _whole(parts["selected"])
    image, kinds, places = chosen[0::3], chosen[1::3], chosen[2::3]
    good = (image == (0 if detector.alone else n)) & (kinds >= 0) & (kinds < table.shape[1])
    good &= (places >= 0) & (places < len(boxes))
    return boxes[places[good]], table[places[good], kinds[good]], kinds[good]


def _predictions(
    detector: Detector, parts: dict[str, NDArray[Any]], n: int, geometry: Geometry
) -> tuple[Floats, Floats, NDArray[np.int64]] | None:
    rows = _table(parts["predictions"])
    if not detector.suppress:
        box, score, kind, image = detector.columns
        if rows.shape[1] <= max(box + 3, score, kind):
            return None
        if image is not None:
            rows = rows[rows[:, image] == (0 if detector.alone else n)]
        return rows[:, box : box + 4], rows[:, score], _whole(rows[:, kind])
    rows = rows.T if detector.swapped else rows
    first = detector.columns[1]
    kinds = rows[:, first : first + (detector.classes or rows.shape[1])]
    if not kinds.size:
        return None
    if detector.objectness is not None:
        kinds = kinds * rows[:, detector.objectness : detector.objectness + 1]
    boxes = rows[:, :4]
    if detector.unit == "grid":
        decoded = _from_grid(boxes, geometry.size)
        if decoded is None:
            return None
        boxes = decoded
    scores, best = _best(kinds, detector)
    return boxes, scores, best


def _table(values: NDArray[Any]) -> Floats:
    """The last two axes; a list as one column. Those before them have length 1."""
    width = values.shape[-1] if values.ndim > 1 else 1
    length = values.shape[-2] if values.ndim > 1 else values.size
    return values.astype(np.float64).ravel()[: length * width].reshape(length, width)


def _rows(values: NDArray[Any], width: int) -> Floats | None:
    """(M, width), whatever axes of length 1 stand between; None where it is something else."""
    if not values.ndim or values.shape[-1] != width:
        return None
    return values.astype(np.float64).reshape(-1, width)


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    numbers = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-1, posinf=-1, neginf=-1)
    return np.clip(np.rint(numbers), -1, 2**31).astype(np.int64).ravel()


def _best(scores: Floats, detector: Detector) -> tuple[Floats, NDArray[np.int64]]:
    """The score and the class of every box."""
    if detector.squash == "sigmoid":
        scores = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    elif detector.squash == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
    if detector.background is not None:
        scores = scores.copy()
        scores[:, detector.background] = -1
    return scores.max(axis=1), scores.argmax(axis=1).astype(np.int64)


def _from_grid(boxes: Floats, size: tuple[int, int]) -> Floats | None:
    """YOLOX: centre = (place in the cell + cell) x stride, sides = exp(logarithm) x stride."""
    found = grid_strides(size, len(boxes))
    if found is None:
        return None
    corners, steps = [], []
    for stride in found[1]:
        row, column = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        cells = np.stack([column.ravel(), row.ravel()], axis=1).repeat(found[0], axis=0)
        corners.append(cells)
        steps.append(np.full((len(cells), 1), stride))
    edges = np.concatenate(steps)
    centre = (boxes[:, :2] + np.concatenate(corners)) * edges
    return np.concatenate([centre, np.exp(np.minimum(boxes[:, 2:], 50)) * edges], axis=1)


def _corners(detector: Detector, boxes: Floats, geometry: Geometry) -> Floats:
    """(M, 4) as x0, y0, x1, y1 in pixels of the model's input."""
    if detector.corners == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    elif detector.corners == "cxcywh":
        half = boxes[:, 2:] / 2
        boxes = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    if detector.unit == "share":
        boxes = boxes * (geometry.size[::-1] * 2)
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)


def _suppressed(boxes: Floats, scores: Floats, kinds: NDArray[np.int64]) -> NDArray[np.intp]:
    """Places of the boxes that no better one of their class overlaps much, best first."""
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxesBatched(sized.tolist(), scores.tolist(), kinds.tolist(), 0.0, OVERLAP)
    return np.sort(np.asarray(kept, dtype=np.intp).ravel())
