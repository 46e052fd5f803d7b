"""Which output of a segmentation network is its map of classes: decided once, from the graph, names and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError
from .classifier import words
from .outputs import Output
from .score_value import ScoreValue, score_value
from .value_trace import ValueTrace

__all__ = ["SEGMENTATION", "ClassMap", "find_class_map"]

SEGMENTATION: Final = "segmentation"
"""What the user says where a map is not recognised."""
COARSEST: Final = 16
"""A map has at least one place for so many pixels each way."""
SAYS_MAP: Final = frozenset(
    {"seg", "segmentation", "semantic", "mask", "logit", "class", "matte", "saliency", "foreground"}
)
SAYS_OTHER: Final = frozenset({
    "heatmap", "hm", "heat", "depth", "disparity", "flow", "offset", "feature", "feat", "embedding", "box", "bbox",
    "keypoint", "kpt", "landmark", "paf", "proto", "prototype", "normal", "image", "reconstruction", "attention",
})  # fmt: skip


@dataclass(frozen=True)
class ClassMap:
    """How the map of a segmentation network is read.

    Attributes:
        output: its name.
        kind: ``scores`` (one number per class and place, classes that exclude each other), ``labels`` (likewise, but
            classes that do not), ``mask`` (one number per place: foreground above a probability of .5) or ``numbers``
            (the number of the class itself).
        axis: the axis of the classes, or that of length 1; None: there is none.
        logits: a mask's or labels' numbers are logits.
        classes: how many there are; None where that is not known.
        scores: the value that holds the classes' logits or probabilities; None where that is not known.
        reason: why, in a few words.
        guessed: nothing but the form speaks for it.
    """

    output: str
    kind: str
    axis: int | None
    logits: bool = False
    classes: int | None = None
    scores: ScoreValue | None = None
    reason: str = ""
    guessed: bool = False


def find_class_map(
    outputs: Sequence[Output],
    trace: ValueTrace,
    size: tuple[int, int],
    labels: Sequence[str] | None,
    *,
    forced: bool = False,
) -> ClassMap | None:
    """The map of a segmentation network; None where there is none.

    An output is one if it is a map at least a sixteenth as large as the input each way, and

    1. the largest of several classes was taken at every place (ArgMax), or a softmax goes over the classes, or
    2. it has one channel behind a sigmoid, or one that its name calls a mask, or
    3. it has as many channels as there are labels, or a name that says so, or
    4. (a guess) it is the only map, of the input's own size, with two, or four and more, channels.
    A name that says something else (depth, heatmap, ...) rules it out. Of several equal ones the first counts: the
    others are auxiliary.

    Args:
        outputs: of the model.
        trace: of its graph.
        size: (H, W) of its input.
        labels: names of its classes, or None.
        forced: the user says that there is one.

    Raises:
        UsageError: the user says so, but no output can be one.
    """
    maps = [item for item in outputs if item.tensor and item.axis == 0 and _class_axes(item, size)]
    count, alone = len(labels or ()), len(maps) == 1
    found = [_reading(item, trace, size, count, forced=forced, alone=alone) for item in maps]
    best = min(found, key=lambda pair: pair[0], default=(_NOT, None))[1]
    if best is None and forced:
        raise UsageError(
            f"--detections {SEGMENTATION}: expected a map (N, classes, h, w) of scores or (N, h, w) of classes, at "
            "least a sixteenth as large as the input each way, but no output is one"
        )
    return best


_NOT: Final = 9


def _class_axes(item: Output, size: tuple[int, int]) -> list[int | None]:
    """Where the classes of a map may lie: axis 1 or 3, None for a map without such an axis; empty for no map."""
    shape = item.shape or ()
    if len(shape) == 3 and _spatial(shape[1:], size):
        return [None]
    if len(shape) != 4:
        return []
    return [axis for axis, rest in ((1, shape[2:]), (3, shape[1:3])) if _spatial(rest, size)]


def _spatial(sides: Sequence[int | None], size: tuple[int, int]) -> bool:
    if None in sides:
        return all(side is None for side in sides)
    shares = [(side or 0) / whole for side, whole in zip(sides, size, strict=True)]
    return min(shares) >= 1 / COARSEST and max(shares) <= 2 and abs(shares[0] - shares[1]) < 0.1 * max(shares)


def _reading(
    item: Output, trace: ValueTrace, size: tuple[int, int], labels: int, *, forced: bool, alone: bool
) -> tuple[int, ClassMap | None]:
    """How good a map an output makes (less is better, `_NOT`: none), and how it is read."""
    axis, shape, said = _class_axes(item, size)[0], item.shape or (), words(item.name)
    node = trace.maker(trace.behind(item.name))
    if node is not None and node.op_type == "ArgMax":
        over = next((a.i for a in node.attribute if a.name == "axis"), 0) % 4
        scores = score_value(trace, node.input[0], over)
        single = axis if axis is not None and shape[axis] == 1 else None
        return 0, ClassMap(
            item.name, "numbers", single, False, scores.count, scores, "the largest class of every place"
        )
    if axis is None or not item.floating or (said & SAYS_OTHER and not forced):
        return _NOT, None
    count = shape[axis]
    scores = score_value(trace, item.name, axis, 0, count)
    if count == 1:
        named = bool(said & SAYS_MAP) or forced
        logits = not scores.logits
        if not scores.logits and not named:
            return _NOT, None
        if logits:
            scores = ScoreValue(item.name, axis, 0, 1, logits=True)
        reason = "one channel that its name calls a mask" if logits else "one channel behind a sigmoid"
        return 2 if scores.logits and not logits else 3, ClassMap(item.name, "mask", axis, logits, 1, scores, reason)
    if scores.logits and scores.exclusive:
        return 1, ClassMap(item.name, "scores", axis, False, count, scores, "a softmax over the classes of every place")
    if scores.logits:
        fits = forced or bool(said & SAYS_MAP) or (labels > 0 and count == labels)
        reading = ClassMap(item.name, "labels", axis, False, count, scores, "a sigmoid for every class and place")
        return (3, reading) if fits else (_NOT, None)
    scores = ScoreValue(item.name, axis, 0, count, logits=True, exclusive=True)
    if forced or (labels > 0 and count == labels) or said & SAYS_MAP:
        why = f"one of {labels} labels each" if count == labels else "named by the user" if forced else "its name"
        return 4, ClassMap(item.name, "scores", axis, True, count, scores, why)
    sides = tuple(side for place, side in enumerate(shape) if place not in (0, axis))
    if alone and sides == size and count not in (1, 3, None):
        reason = "a guess: the only map, of the input's size"
        return 5, ClassMap(item.name, "scores", axis, True, count, scores, reason, guessed=True)
    return _NOT, None
