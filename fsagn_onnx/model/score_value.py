"""Which value of a graph holds the scores of classes, per box or per place of a map."""

from __future__ import annotations

from dataclasses import dataclass

from .value_trace import SQUASHING, ValueTrace

__all__ = ["ScoreValue", "chosen_score", "score_value"]


@dataclass(frozen=True)
class ScoreValue:
    """Which value of a graph holds the scores of classes, per box or per place, before anything chooses among them.

    With `logits` and `exclusive`, the classes' log-odds are z_c - logsumexp of the others; with `logits` alone, z_c;
    without `logits`, log p - log(1 - p), where p is multiplied by the column `objectness` if there is one.

    Attributes:
        value: its name. Its axis 0 is that of the images, its other axes those of classes and of boxes or places.
        axis: the axis of the classes; None: one class alone, or (`chosen`) the class that a box was chosen for.
        first: place of the first class on that axis.
        count: how many classes follow, background included; None where that is not known.
        logits: the numbers are logits; else probabilities.
        exclusive: a softmax over the classes, not a sigmoid for each, makes probabilities of them.
        objectness: place on the axis of a factor on all classes' probabilities; None: there is none.
        background: the class that means "nothing here"; None: there is none.
        chosen: the numbers are those of boxes that were chosen already, with whatever axes their list has.
    """

    value: str
    axis: int | None
    first: int = 0
    count: int | None = None
    logits: bool = False
    exclusive: bool = False
    objectness: int | None = None
    background: int | None = None
    chosen: bool = False


def score_value(
    trace: ValueTrace,
    name: str,
    axis: int,
    first: int = 0,
    count: int | None = None,
    *,
    objectness: int | None = None,
    background: int | None = None,
) -> ScoreValue:
    """The scores of a value, or the logits that a sigmoid or softmax made them of, where one value holds them.

    Args:
        trace: of the graph.
        name: value that holds probabilities, or logits.
        axis: of the classes.
        first: place of the first class on it.
        count: how many classes there are.
        objectness: see `ScoreValue`; with one, the value itself is taken.
        background: see `ScoreValue`.
    """
    start = 0
    for part in trace.columns(name, axis) if objectness is None else ():
        if start == first and part.whole:
            node = trace.maker(part.value)
            if node is not None and node.op_type in {"Softmax", *SQUASHING}:
                soft = node.op_type == "Softmax"
                known = count if count is not None else part.width
                return ScoreValue(node.input[0], part.axis, 0, known, True, soft, None, background)
        if part.width is None:
            break
        start += part.width
    return ScoreValue(name, axis, first, count, objectness=objectness, background=background)


def chosen_score(trace: ValueTrace, name: str, count: int | None) -> ScoreValue:
    """Where the scores are before boxes are chosen: what the one sigmoid or softmax over all boxes was made of.

    Args:
        trace: of the graph.
        name: the scores of the chosen boxes; they are given where there is no such value, or several (one per level).
        count: how many classes there are, where that is known.
    """
    nodes = [trace.topology.nodes[index] for index in sorted(trace.topology.ancestors([name]))]
    squashed = [n for n in nodes if n.op_type in {"Softmax", *SQUASHING} and len(trace.shapes.get(n.input[0], ())) == 3]
    if len(squashed) != 1:
        return ScoreValue(name, None, chosen=True)
    node = squashed[0]
    sides = trace.shapes[node.input[0]][1:]
    axis = 1 + (sides.index(count) if count in sides else int(sides[1] <= sides[0]))
    soft = node.op_type == "Softmax"
    return ScoreValue(node.input[0], axis, 0, sides[axis - 1], True, soft, background=0 if soft else None)
