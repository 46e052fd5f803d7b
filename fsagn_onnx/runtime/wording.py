"""What a model answers about an image, in lines of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .findings import Detection, percent

if TYPE_CHECKING:
    from .explanation import Explanation, Prediction

__all__ = ["answer_lines"]

SHOWN: Final = 3
"""Answers of one output that are named."""
SHOWN_SEGMENTS: Final = 6
SHOWN_BOXES: Final = 5
SHOWN_PLACES: Final = 10


def answer_lines(explanation: Explanation, *, places: bool = False) -> list[str]:
    """Classes, heads, boxes and segments of an image, each kind in one line; only what the model can have.

    Args:
        explanation: of the image.
        places: say where boxes are, each in a line of its own.
    """
    lines = [_answers(explanation.predictions)] if explanation.predictions else []
    if explanation.heads:
        lines.append(" · ".join(f"{name}: {_answers(answers[:1])}" for name, answers in explanation.heads.items()))
    if explanation.detections is not None:
        lines += _boxes(explanation.detections, places=places)
    if explanation.segmentation is not None:
        segments = explanation.segmentation.segments
        shares = (f"{segment.title} {percent(segment.share)}" for segment in segments[:SHOWN_SEGMENTS])
        lines.append("of the picture: " + (", ".join(shares) or "nothing found"))
    return lines


def _boxes(boxes: tuple[Detection, ...], *, places: bool) -> list[str]:
    if not boxes:
        return ["no box"]
    count = f"{len(boxes)} box{'es' * (len(boxes) != 1)}"
    named = [f"{box.title} {percent(box.score)}" for box in boxes]
    if not places:
        more = len(boxes) - SHOWN_BOXES
        return [f"{count}: {', '.join(named[:SHOWN_BOXES])}" + (f" and {more} more" if more > 0 else "")]
    sides = (", ".join(f"{side:.0f}" for side in box.box) for box in boxes)
    lines = [f"  {name} at {where}" for name, where in zip(named, sides, strict=True)]
    counts = Counter(box.title for box in boxes).most_common(SHOWN_BOXES)
    kinds = ", ".join(f"{number} {title}" for title, number in counts)
    return [f"{count}: {kinds}", *lines[:SHOWN_PLACES], *["  ..."][: len(lines) > SHOWN_PLACES]]


def _answers(answers: Iterable[Prediction]) -> str:
    return ", ".join(f"{answer.title} {percent(answer.score)}" for answer in tuple(answers)[:SHOWN])
