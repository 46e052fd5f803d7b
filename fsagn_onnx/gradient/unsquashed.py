"""Log-odds in front of the sigmoids and softmaxes that made probabilities of them.

A probability that is rounded to 0 or 1 has no gradient, and a decision that is read there shows nothing. So the graph
is followed back from the probabilities, and what only moves numbers about on the way (Concat, Split, Reshape, ...) is
written once more behind the log-odds:

    sigmoid(z)      z
    1 - p           -(log-odds of p)
    p q             -log(e^-a + e^-b + e^(-a-b)), a and b the log-odds of p and q: objectness times class
    softmax(z)      z, of classes that exclude each other, where all of them are asked for
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Final

import numpy as np
import onnx
from onnx import helper

from ..model.classifier import SINGLE, Classifier
from ..model.score_value import ScoreValue
from ..model.value_trace import SQUASHING
from .backward import PREFIX, Sizes
from .decision import decided_scores
from .dense_decision import DenseScores
from .facts import FLOATS, GraphFacts, Shape
from .writer import NodeWriter

__all__ = ["before_squashing"]

SHAPING: Final = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
PROBABLE: Final = ("probabilities", "sigmoid", "labels")
"""Kinds of scores that are probabilities."""


def before_squashing(
    proto: onnx.ModelProto,
    source: Classifier | DenseScores,
    sizes: Sizes | None = None,
    prefix: str = PREFIX,
) -> Classifier | DenseScores:
    """Where decisions are read so that they do not saturate; the source itself where that is not found, or needless.

    Args:
        proto: a model in topological order at opset 13 or later; nodes are appended where they are needed.
        source: an output that classifies, or scores per box or place.
        sizes: input -> shape of one sample, where the graph leaves it open.
        prefix: what names of new nodes and values begin with.
    """
    if isinstance(source, DenseScores):
        return source if source.score.logits or source.score.chosen else _dense(proto, source, sizes, prefix)
    if source.output is None or source.scores not in PROBABLE:
        return source
    facts = GraphFacts(proto, sizes)
    if decided_scores(facts, source.output, source.scores)[1] in ("logits", "logit", "labels"):
        return source
    shape = facts.shape(source.output) if facts.knows(source.output) else ()
    if len(shape) < 2 or shape[0] != -1 or shape[1] != prod(shape[1:]):
        return source
    found = _LogOdds(facts, NodeWriter(proto, prefix)).behind(source.output, _Columns(1, 0, shape[1]))
    if found is None:
        return source
    value = found.write()
    if found.exclusive:
        return source if source.scores in SINGLE else replace(source, output=value, scores="logits")
    if source.scores in SINGLE:
        return replace(source, output=value, scores="logit")
    labels = NodeWriter(proto, f"{prefix}labels/").op("Sigmoid", value)  # whose input the decision is read from
    return replace(source, output=labels, scores="labels")


def _dense(proto: onnx.ModelProto, source: DenseScores, sizes: Sizes | None, prefix: str) -> DenseScores:
    score, facts = source.score, GraphFacts(proto, sizes)
    shape = facts.shape(score.value) if facts.knows(score.value) else ()
    if len(shape) < 2 or shape[0] >= 0 or score.axis is None:
        return source
    axis = score.axis % len(shape)
    count = shape[axis] - score.first if score.count is None else score.count
    odds = _LogOdds(facts, NodeWriter(proto, prefix))
    found = odds.behind(score.value, _Columns(axis, score.first, count))
    if found is not None and score.objectness is not None:
        found = odds.both(found, odds.behind(score.value, _Columns(axis, score.objectness, 1)))
    if found is None:
        return source
    made = ScoreValue(
        found.write(), axis, 0, count, logits=True, exclusive=found.exclusive, background=score.background
    )
    return replace(source, score=made)


@dataclass(frozen=True)
class _Odds:
    """Log-odds that can be written, of the probabilities' shape with the columns asked for.

    Attributes:
        write: appends the nodes; gives the value's name.
        exclusive: logits of classes that exclude each other, not log-odds of each.
    """

    write: Callable[[], str]
    exclusive: bool = False

    def then(self, change: Callable[[str], str]) -> _Odds:
        """The same, moved about."""
        return replace(self, write=lambda: change(self.write()))


@dataclass(frozen=True)
class _Columns:
    """Consecutive places along one axis of a value."""

    axis: int
    first: int
    count: int

    @property
    def stop(self) -> int:
        """The place behind the last."""
        return self.first + self.count

    def all_of(self, shape: Shape) -> bool:
        """Whether a value of this shape has no others."""
        return self.first == 0 and self.count == shape[self.axis]


class _LogOdds:
    """Finds log-odds behind probabilities.

    Args:
        facts: of the graph.
        write: appends to it.
    """

    def __init__(self, facts: GraphFacts, write: NodeWriter) -> None:
        self.facts, self.graph = facts, write

    def _maker(self, name: str) -> onnx.NodeProto | None:
        at = self.facts.topology.producer.get(name)
        node = None if at is None else self.facts.topology.nodes[at]
        return None if node is None or node.domain else node

    def behind(self, name: str, columns: _Columns) -> _Odds | None:
        """Log-odds of some columns of probabilities; None where none are found."""
        node = self._maker(name)
        if node is None or not self.facts.knows(name) or not (node.input and self.facts.knows(node.input[0])):
            return None
        if node.op_type in SQUASHING:
            return _Odds(lambda: self._taken(node.input[0], columns))
        find = _FINDERS.get(node.op_type)
        return None if find is None else find(self, node, name, columns)

    def both(self, one: _Odds | None, other: _Odds | None) -> _Odds | None:
        """Log-odds of a product of probabilities: -logsumexp(-a, -b, -a - b), by two softplus, which never overflow."""
        if one is None or other is None or one.exclusive or other.exclusive:
            return None

        def written() -> str:
            op, a, b = self.graph.op, one.write(), other.write()
            x, y = op("Neg", a), op("Neg", b)
            level = op("Add", y, op("Softplus", x))
            return op("Neg", op("Add", level, op("Softplus", op("Sub", x, level))))

        return _Odds(written)

    def _taken(self, value: str, columns: _Columns) -> str:
        if columns.all_of(self.facts.shape(value)):
            return value
        return self.graph.slice(value, columns.axis, columns.first, columns.first + columns.count)

    def _softmax(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        shape = self.facts.shape(node.input[0])
        along = _attribute(node, "axis", -1) % len(shape)
        whole = along == columns.axis and columns.all_of(shape) and columns.count > 1
        return _Odds(lambda: node.input[0], exclusive=True) if whole else None

    def _passed(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        if self.facts.type(node.input[0]) not in FLOATS:
            return None
        found = self.behind(node.input[0], columns)
        if node.op_type != "Cast" or found is None:
            return found
        return found.then(lambda value: self.graph.op("Cast", value, to=self.facts.type(node.output[0])))

    def _clipped(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        """Bounds that no probability reaches beyond by more than rounding."""
        bounds = [self.facts.array(name) if name else None for name in node.input[1:3]]
        given = [None if bound is None else float(np.ravel(bound)[0]) for bound in bounds]
        given += [None] * (2 - len(given))
        if (given[0] is not None and given[0] > 1e-3) or (given[1] is not None and given[1] < 1 - 1e-3):
            return None
        return self.behind(node.input[0], columns)

    def _turned(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        rank = len(self.facts.shape(node.output[0]))
        perm = next((list(item.ints) for item in node.attribute if item.name == "perm"), list(range(rank))[::-1])
        found = self.behind(node.input[0], replace(columns, axis=perm[columns.axis]))
        return None if found is None else found.then(lambda value: self.graph.op("Transpose", value, perm=perm))

    def _shaped(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        before, after = self.facts.shape(node.input[0]), self.facts.shape(node.output[0])
        axis = columns.axis
        ahead = prod(after[:axis])
        place = next((i for i, size in enumerate(before) if size == after[axis] and prod(before[:i]) == ahead), None)
        target = [columns.count if i == axis else size for i, size in enumerate(after)]
        if place is None or after[0] >= 0 or any(size < 0 for size in after[1:]):
            return None
        found = self.behind(node.input[0], replace(columns, axis=place))
        to = [-1, *target[1:]]
        return None if found is None else found.then(lambda v: self.graph.op("Reshape", v, self.graph.constant(to)))

    def _joined(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        along = _attribute(node, "axis", 0) % len(self.facts.shape(node.output[0]))
        parts: list[_Odds | None] = []
        start = 0
        for part in node.input:
            if not self.facts.knows(part):
                return None
            width = self.facts.shape(part)[along]
            if along != columns.axis:
                parts.append(self.behind(part, columns))
            elif (low := max(columns.first - start, 0)) < (high := min(columns.stop - start, width)):
                parts.append(self.behind(part, replace(columns, first=low, count=high - low)))
            start += width
        known = [part for part in parts if part is not None]
        exclusive = bool(known) and known[0].exclusive
        if not known or len(known) < len(parts) or any(part.exclusive != exclusive for part in known):
            return None
        if len(known) == 1:
            return known[0]
        if exclusive and along == columns.axis:
            return None
        return _Odds(lambda: self.graph.op("Concat", *(part.write() for part in known), axis=along), exclusive)

    def _split(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        along = _attribute(node, "axis", 0) % len(self.facts.shape(name))
        before = list(node.output)[: list(node.output).index(name)]
        if not all(self.facts.knows(other) for other in before):
            return None
        start = sum(self.facts.shape(other)[along] for other in before)
        return self._cut(node, columns, [(along, start, start + self.facts.shape(name)[along])])

    def _sliced(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        shape, given = (
            self.facts.shape(node.input[0]),
            [self.facts.whole(item) if item else None for item in node.input[1:]],
        )
        starts, ends, axes, steps = [*given, None, None][:4]
        if starts is None or ends is None or any(step != 1 for step in steps or ()):
            return None
        pieces = []
        for along, start, end in zip(axes or range(len(starts)), starts, ends, strict=True):
            size = shape[along % len(shape)]
            if size < 0:
                return None
            low, high = (max(0, at + size) if at < 0 else min(at, size) for at in (start, end))
            pieces.append((along % len(shape), low, high))
        return self._cut(node, columns, pieces)

    def _cut(self, node: onnx.NodeProto, columns: _Columns, pieces: list[tuple[int, int, int]]) -> _Odds | None:
        """Parts (axis, start, stop) of a value: on the axis of the columns they are asked for further on."""
        shift = sum(start for along, start, _ in pieces if along == columns.axis)
        found = self.behind(node.input[0], replace(columns, first=columns.first + shift))
        rest = [piece for piece in pieces if piece[0] != columns.axis]
        if found is None or not rest:
            return found

        def cut(value: str) -> str:
            for along, start, stop in rest:
                value = self.graph.slice(value, along, start, stop)
            return value

        return found.then(cut)

    def _gathered(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        """One place of an axis, which is dropped."""
        index, along = self.facts.array(node.input[1]), _attribute(node, "axis", 0)
        along %= len(self.facts.shape(node.input[0]))
        if index is None or index.ndim or not along:
            return None
        found = self.behind(node.input[0], replace(columns, axis=columns.axis + (along <= columns.axis)))
        place = int(index)
        return found and found.then(
            lambda value: self.graph.op("Gather", value, self.graph.constant(place), axis=along)
        )

    def _rest(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        """Of 1 - p."""
        if self._number(node.input[0]) != 1:
            return None
        found = self.behind(node.input[1], columns)
        return None if found is None or found.exclusive else found.then(lambda value: self.graph.op("Neg", value))

    def _product(self, node: onnx.NodeProto, name: str, columns: _Columns) -> _Odds | None:
        """Of p q, each of which may be spread along the axis."""
        parts = []
        for factor in node.input:
            shape = self.facts.shape(factor) if self.facts.knows(factor) else ()
            if len(shape) != len(self.facts.shape(name)):
                return None
            spread = shape[columns.axis] == 1
            parts.append(self.behind(factor, replace(columns, first=0, count=1) if spread else columns))
        return self.both(*parts)

    def _number(self, name: str) -> float | None:
        """The number that all of a constant is."""
        array = self.facts.array(name)
        return float(array.flat[0]) if array is not None and array.size and (array == array.flat[0]).all() else None


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    found = next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
    return int(found)


_FINDERS: Final[dict[str, Callable[[_LogOdds, onnx.NodeProto, str, _Columns], _Odds | None]]] = {
    "Softmax": _LogOdds._softmax,
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _LogOdds._passed),
    **dict.fromkeys(SHAPING, _LogOdds._shaped),
    "Clip": _LogOdds._clipped,
    "Transpose": _LogOdds._turned,
    "Concat": _LogOdds._joined,
    "Split": _LogOdds._split,
    "Slice": _LogOdds._sliced,
    "Gather": _LogOdds._gathered,
    "Sub": _LogOdds._rest,
    "Mul": _LogOdds._product,
}
