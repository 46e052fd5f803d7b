"""In which layout a detector gives its boxes: decided once, from the graph, the outputs' names and the labels.

What is looked at: shapes, element types and names of the outputs; what their columns are put together of; how many
anchors an input of this size has. Never the numbers of a picture. Where nothing fits, no box is shown, unless the user
names the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from ..errors import UsageError
from .box_heads import find_head, find_pair
from .box_levels import find_levels
from .box_lists import find_lists, find_rows, find_selected, find_single_lists
from .detector import Detector, DetectorSearch
from .outputs import Output
from .value_trace import ValueTrace

__all__ = ["LAYOUTS", "find_detector"]

_FINDERS: Final[dict[str, tuple[Callable[[DetectorSearch, str], Detector | None], str]]] = {
    "tensorflow": (find_lists, "boxes (N, M, 4), and scores and classes (N, M) that are named so"),
    "efficientnms": (find_lists, "boxes (N, M, 4), scores (N, M), and classes (N, M) of whole numbers or named so"),
    "torchvision": (find_single_lists, "lists of boxes (M, 4), labels (M) of whole numbers and scores (M)"),
    "selected": (find_selected, "the indices (M, 3) of a NonMaxSuppression, and the boxes and scores that it read"),
    "end2end": (find_rows, "an output (N, boxes, 6), (boxes, 6) or (boxes, 7)"),
    "yolov5": (find_head, "an output (N, anchors, 5 + classes)"),
    "yolov8": (find_head, "an output (N, 4 + classes, anchors)"),
    "yolox": (find_head, "an output (N, anchors, 5 + classes)"),
    "picodet": (find_levels, "for every stride scores (N, cells, classes) and distributions (N, cells, 4 bins)"),
    "boxes-scores": (find_pair, "outputs (N, anchors, 4) and (N, anchors, classes)"),
}
LAYOUTS: Final = tuple(_FINDERS)
"""The layouts that are known, in the order in which they are looked for."""


def find_detector(
    outputs: Sequence[Output],
    trace: ValueTrace,
    size: tuple[int, int],
    labels: Sequence[str] | None,
    *,
    layout: str | None = None,
) -> Detector | None:
    """The layout of a detector's boxes; None where none is recognised.

    Args:
        outputs: of the model, see `find_outputs`.
        trace: of its graph.
        size: (H, W) of its input.
        labels: names of its classes, or None.
        layout: what the user says, one of `LAYOUTS` or ``none``; None: found.

    Raises:
        UsageError: no such layout, or the outputs cannot be read so.
    """
    if layout == "none":
        return None
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"detections must be one of {', '.join(LAYOUTS)} or none, but got '{layout}'")
    search = DetectorSearch(tuple(outputs), trace, size, tuple(labels or ()), layout is not None)
    for name, (finder, _) in _FINDERS.items():
        if layout in (None, name) and (found := finder(search, name)) is not None:
            alone = any(item.axis is None for item in outputs if item.name in found.roles.values())
            return replace(found, alone=alone, reason=found.reason if layout is None else "said so by the user")
    if layout is None:
        return None
    shapes = ", ".join(f"'{item.name}' {_shown(item)}" for item in search.tensors[:6]) or "none"
    raise UsageError(f"--detections {layout}: expected {_FINDERS[layout][1]}, but the outputs are {shapes}")


def _shown(item: Output) -> str:
    if item.shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if dim is None else str(dim) for dim in item.shape)})"
