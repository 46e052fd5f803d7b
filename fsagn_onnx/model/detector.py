"""How a detector's boxes are read, and what is known while that is found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from .outputs import Output
from .score_value import ScoreValue
from .value_trace import ValueTrace

__all__ = ["BACKGROUNDS", "WHOLE_NUMBERS", "Detector", "DetectorSearch"]

WHOLE_NUMBERS: Final = frozenset({"int64", "int32", "int16", "uint8", "int8"})
BACKGROUNDS: Final = frozenset({"background", "__background__", "_background_", "bg", "n/a", "no object", "unlabeled"})
"""First labels that name no object."""
SHARE: Final = 2.0
"""Where no constant between convolutions and boxes is larger, boxes are shares of the picture's sides: strides,
anchors and grids in pixels are larger."""


@dataclass(frozen=True)
class Detector:
    """How the boxes of a detector are read.

    Attributes:
        layout: one of `LAYOUTS`.
        roles: ``predictions``, ``boxes``, ``scores``, ``classes``, ``count`` or ``selected`` -> name of the output; of
            several maps, with the stride: ``boxes8``.
        corners: what the four numbers of a box are: ``xyxy``, ``yxyx``, or ``cxcywh`` (centre and size).
        unit: of the boxes: ``pixels`` of the model's input, ``share`` of its sides, or ``grid`` (YOLOX: cells, and the
            logarithm of the size).
        swapped: the anchors lie along the last axis.
        columns: of rows: places of the box, the score, the class and (or None) the image.
        objectness: place of a factor on all scores of a box, or None.
        classes: how many classes there are, background included; None where that is not known.
        background: the class that means "nothing here"; None: there is none.
        first_label: the class that the first label names.
        scores: where the graph holds the scores before anything chooses among them; None where that is not known.
        squash: what still has to make probabilities of the scores: ``sigmoid``, ``softmax`` or ``none``.
        suppress: overlapping boxes have still to be suppressed.
        alone: some of the lists have no axis of images: a pass takes one image.
        reason: why, in a few words.
    """

    layout: str
    roles: Mapping[str, str]
    corners: str = "xyxy"
    unit: str = "pixels"
    swapped: bool = False
    columns: tuple[int, int, int, int | None] = (0, 4, 5, None)
    objectness: int | None = None
    classes: int | None = None
    background: int | None = None
    first_label: int = 0
    scores: ScoreValue | None = None
    squash: str = "none"
    suppress: bool = False
    alone: bool = False
    reason: str = ""


@dataclass(frozen=True)
class DetectorSearch:
    """What is known while a layout is looked for.

    Attributes:
        outputs: of the model.
        trace: of its graph.
        size: (H, W) of its input.
        labels: names of its classes; empty where there are none.
        forced: the user named the layout: names and structure need not tell it.
    """

    outputs: tuple[Output, ...]
    trace: ValueTrace
    size: tuple[int, int]
    labels: tuple[str, ...]
    forced: bool

    @cached_property
    def tensors(self) -> tuple[Output, ...]:
        """Outputs that are arrays and hang on the image."""
        return tuple(item for item in self.outputs if item.tensor and not item.constant)

    def of_rank(self, *ranks: int) -> tuple[Output, ...]:
        """Those of these ranks."""
        return tuple(item for item in self.tensors if item.shape is not None and len(item.shape) in ranks)

    def unit(self, name: str) -> str:
        """``share`` or ``pixels``, by the constants between the convolutions and the boxes."""
        if self.trace.squashed(name) is not None:
            return "share"
        largest = self.trace.largest(name)
        return "share" if largest is not None and largest <= SHARE else "pixels"

    @property
    def has_background_label(self) -> bool:
        """Whether the first label names the background."""
        return bool(self.labels) and self.labels[0].casefold() in BACKGROUNDS
