"""Decision values of detectors and segmentation networks, and their gradients by the scores.

Of a detector, d_c is the log-odds of class c in the box where they are highest. Of a segmentation network it is their
mean over the places that carry the class: where it has the highest score, or, where classes exclude nothing, a
probability above .5; where no place does, it is the log-odds at the place where they are highest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from ..errors import GradientError
from ..model.score_value import ScoreValue
from .choice import chosen_classes
from .decision_values import LEAST, ULP, Decision, as_type, owners_of, worked_in
from .facts import GraphFacts
from .writer import NodeWriter

__all__ = ["DenseDecisionWriter", "DenseScores"]


@dataclass(frozen=True)
class DenseScores:
    """Scores of classes, per box or per place.

    Attributes:
        score: where they are.
        boxes: the other axis is that of boxes: one of them decides; else all places that carry the class.
        mask: one number per place: foreground (class 1) or not (class 0).
    """

    score: ScoreValue
    boxes: bool
    mask: bool = False


class DenseDecisionWriter:
    """Writes decision values of a detector or a segmentation network.

    Args:
        facts: of the graph.
        write: appends to it.
        source: where the scores are.

    Raises:
        GradientError: they belong to boxes that were chosen already, or their shape is not known.
    """

    def __init__(self, facts: GraphFacts, write: NodeWriter, source: DenseScores) -> None:
        score = source.score
        if score.chosen:
            raise GradientError(
                f"'{score.value}' holds scores of boxes that were chosen already: they have no gradient"
            )
        self.source, self.score, self.graph = source, score, write
        self.shape, self.held = facts.shape(score.value), facts.type(score.value)
        self.type = worked_in(self.held)
        if len(self.shape) < 2 or self.shape[0] >= 0:
            raise GradientError(f"'{score.value}' must hold scores (N, classes, places), but is {self.shape}")
        self.axis = score.axis if score.axis is None else score.axis % len(self.shape)
        self.width = 1 if self.axis is None else self.shape[self.axis]
        self.count = self.width - score.first if score.count is None else score.count
        self.places = math.prod(self.shape[1:]) // self.width

    def write(self, classes: str, single: bool = False) -> Decision:
        """The nodes, see `add_decision`."""
        write, rows = self.graph, self._rows()
        inner = rows
        if self.width != self.count:
            inner = write.slice(rows, 2, self.score.first, self.score.first + self.count)
        objects = None
        if self.score.objectness is not None:
            objects = write.slice(rows, 2, self.score.objectness, self.score.objectness + 1)
        if self.source.mask:
            other = write.op("Neg", inner) if self.score.logits else write.op("Sub", self._number(1), inner)
            inner = write.op("Concat", other, inner, axis=2)
        likely = self._likely(inner, objects)  # (N, P, C)
        ids = self._chosen(likely, classes)
        weights = self._weights(likely, ids)  # (N, J, P)
        decision, slope = self._decided(inner, objects, ids, weights)  # slope (N, J, P, width)
        owners = None if single else owners_of(write, classes)
        return Decision(ids, decision, {self.score.value: self._back(slope)}, owners)

    def _number(self, value: float) -> str:
        return self.graph.constant(np.asarray(value, dtype=helper.tensor_dtype_to_np_dtype(self.type)))

    def _rows(self) -> str:
        """The value as (N, places, width)."""
        write, value = self.graph, self.score.value
        if self.axis is not None and self.axis != len(self.shape) - 1:
            order = [axis for axis in range(len(self.shape)) if axis != self.axis]
            value = write.op("Transpose", value, perm=[*order, self.axis])
        rows = write.op("Reshape", value, write.constant([-1, self.places, self.width]))
        return as_type(write, rows, self.held, self.type)

    def _likely(self, inner: str, objects: str | None) -> str:
        """Numbers that rise with the log-odds of each class."""
        if self.score.logits:
            return self.graph.op("Softmax", inner, axis=2) if self.score.exclusive else inner
        return inner if objects is None else self.graph.op("Mul", inner, objects)

    def _chosen(self, likely: str, classes: str) -> str:
        """Of boxes: the class whose best box is the best; of places: the class that most of them carry."""
        write = self.graph
        if self.source.boxes:
            ranked = write.reduce("ReduceMax", likely, [1], keep=False)
        else:
            ranked = write.sum(self._carrying(likely), [1], keep=False)
        count = 2 if self.source.mask else self.count
        background = 0 if self.source.mask else self.score.background
        if background is not None and count > 1:
            nothing = np.zeros((1, count), dtype=bool)
            nothing[0, background] = True
            lowest = write.constant(np.array(-1e30, dtype=helper.tensor_dtype_to_np_dtype(self.type)))
            ranked = write.op("Where", write.constant(nothing), lowest, ranked)
        return chosen_classes(write, ranked, classes, count)

    def _carrying(self, likely: str) -> str:
        """1 where a place carries a class, (N, P, C)."""
        write = self.graph
        if self.score.exclusive:
            held = write.op("Equal", likely, write.reduce("ReduceMax", likely, [2]))
        else:
            held = write.op("Greater", likely, self._number(0 if self.score.logits else 0.5))
        return write.op("Cast", held, to=self.type)

    def _of_class(self, values: str, ids: str) -> str:
        """(N, P, C) -> (N, J, P): the numbers of the classes asked about."""
        turned = self.graph.op("Transpose", values, perm=[0, 2, 1])
        return self.graph.op("GatherND", turned, self.graph.unsqueeze(ids, 2), batch_dims=1)

    def _weights(self, likely: str, ids: str) -> str:
        """How much each box or place counts; they add up to 1."""
        write = self.graph
        own = self._of_class(likely, ids)
        best = write.op("ArgMax", own, axis=2, keepdims=1)
        places = write.op("Reshape", write.constant(list(range(self.places))), write.constant([1, 1, self.places]))
        single = write.op("Cast", write.op("Equal", best, places), to=self.type)
        if self.source.boxes:
            return single
        held = self._of_class(self._carrying(likely), ids)
        total = write.sum(held, [2])
        some = write.op("Greater", total, self._number(0))
        share = write.op("Div", held, write.op("Max", total, self._number(1)))
        return write.op("Where", some, share, single)

    def _decided(self, inner: str, objects: str | None, ids: str, weights: str) -> tuple[str, str]:
        """d_c (N, J), and its slope by the rows, (N, J, P, width)."""
        write = self.graph
        weighed = write.unsqueeze(weights, 3)
        count = 2 if self.source.mask else self.count
        numbers = write.op("Reshape", write.constant(list(range(count))), write.constant([1, 1, 1, count]))
        own = write.op("Equal", write.op("Unsqueeze", ids, write.constant([2, 3])), numbers)  # (N, J, 1, C)
        more = None
        if self.score.logits and self.score.exclusive:
            others = write.op("Where", own, self._number(-np.inf), write.unsqueeze(inner, 1))  # (N, J, P, C)
            top = write.reduce("ReduceMax", others, [3])
            powers = write.op("Exp", write.op("Sub", others, top))
            total = write.sum(powers, [3])
            level = write.op("Squeeze", write.op("Add", write.op("Log", total), top), write.constant([3]))
            odds = write.op("Sub", self._of_class(inner, ids), level)
            slope = write.op("Where", own, self._number(1), write.op("Neg", write.op("Div", powers, total)))
        elif self.score.logits:
            odds, slope = self._of_class(inner, ids), write.op("Cast", own, to=self.type)
        else:
            given = self._of_class(inner if objects is None else write.op("Mul", inner, objects), ids)
            share = write.op("Min", write.op("Max", given, self._number(LEAST)), self._number(1 - ULP))
            rest = write.op("Sub", self._number(1), share)
            odds = write.op("Sub", write.op("Log", share), write.op("Log", rest))
            steep = write.op("Reciprocal", write.op("Mul", share, rest))
            open_ones = write.op("Less", given, self._number(1))  # what is rounded to 1 hangs on nothing any more
            steep = write.unsqueeze(write.op("Where", open_ones, steep, self._number(0)), 3)
            held = write.op("Cast", own, to=self.type)
            slope = write.op("Mul", steep, held)
            if objects is not None:
                more = write.op("Mul", write.op("Mul", steep, write.unsqueeze(self._of_class(inner, ids), 3)), weighed)
                slope = write.op("Mul", slope, write.unsqueeze(objects, 1))
        decision = write.sum(write.op("Mul", odds, weights), [2], keep=False)
        decision = as_type(write, decision, self.type, TensorProto.FLOAT)
        return decision, self._placed(write.op("Mul", slope, weighed), more)

    def _placed(self, slope: str, more: str | None) -> str:
        """The slope by the classes' numbers, with zeros for what else lies on their axis."""
        write = self.graph
        if self.source.mask:
            first, second = write.slice(slope, 3, 0, 1), write.slice(slope, 3, 1, 2)
            slope = write.op("Sub", second, first)
        if self.width == self.count:
            return slope
        behind = self.width - self.score.first - self.count
        whole = write.op("Pad", slope, write.constant([0, 0, 0, self.score.first, 0, 0, 0, behind]))
        if more is not None and self.score.objectness is not None:
            place = self.score.objectness
            extra = write.op("Pad", more, write.constant([0, 0, 0, place, 0, 0, 0, self.width - place - 1]))
            whole = write.op("Add", whole, extra)
        return whole

    def _back(self, slope: str) -> str:
        """(N, J, P, width) -> rows of the value's own shape."""
        write, rank = self.graph, len(self.shape)
        slope = as_type(write, slope, self.type, self.held)
        if self.axis is None:
            return write.op("Reshape", slope, write.constant([-1, *self.shape[1:]]))
        rest = [size for axis, size in enumerate(self.shape) if axis not in (0, self.axis)]
        value = write.op("Reshape", slope, write.constant([-1, *rest, self.width]))
        if self.axis == rank - 1:
            return value
        order = [axis for axis in range(rank) if axis != self.axis]
        order.append(self.axis)
        return write.op("Transpose", value, perm=[order.index(axis) for axis in range(rank)])
