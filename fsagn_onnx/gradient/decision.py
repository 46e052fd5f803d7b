"""The decision value of a class, written into the graph, and its gradient by the scores that it is made from.

d_c is the log-odds of class c: z_c - log sum exp of the other logits, which does not move when all logits do; from
probabilities log p_c - log(1 - p_c); of one logit, the logit itself (class 1; minus it for class 0); of several labels
that exclude nothing, each one's logit.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import GradientError
from ..model.classifier import SINGLE, Classifier
from ..model.outputs import PASSING
from .backward import PREFIX, Sizes
from .choice import chosen_classes
from .decision_values import LEAST, ULP, Decision, as_type, owners_of, worked_in
from .dense_decision import DenseDecisionWriter, DenseScores
from .facts import GraphFacts
from .writer import NodeWriter

__all__ = ["DecisionWriter", "add_decision", "decided_scores", "decision_writer"]


def decision_writer(
    facts: GraphFacts, write: NodeWriter, source: Classifier | DenseScores
) -> DecisionWriter | DenseDecisionWriter:
    """What writes decision values of a model.

    Args:
        facts: of the graph.
        write: appends to it.
        source: what classifies: an output, or scores per box or place.
    """
    if isinstance(source, DenseScores):
        return DenseDecisionWriter(facts, write, source)
    return DecisionWriter(facts, write, source)


def add_decision(
    proto: onnx.ModelProto,
    classifier: Classifier | DenseScores,
    classes: str,
    *,
    single: bool = False,
    sizes: Sizes | None = None,
    prefix: str = PREFIX,
) -> Decision:
    """Append the decision values of some classes.

    Args:
        proto: a model in topological order at opset 13 or later; changed.
        classifier: which of its outputs classifies, and how; or where scores per box or place are.
        classes: name of an int64 value (N, J): class ids; -1: the highest score not asked for by id.
        single: J is 1: rows are images.
        sizes: input -> shape of one sample, where the graph leaves it open.
        prefix: what names of new nodes and values begin with.

    Raises:
        GradientError: the model does not classify, or the number of its classes is not known.
    """
    facts = GraphFacts(proto, sizes)
    return decision_writer(facts, NodeWriter(proto, prefix), classifier).write(classes, single)


class DecisionWriter:
    """Writes decision values of one classifier.

    Args:
        facts: of the graph.
        write: appends to it.
        classifier: which output classifies, and how.

    Raises:
        GradientError: none does, or its number of classes is not known.
    """

    def __init__(self, facts: GraphFacts, write: NodeWriter, classifier: Classifier) -> None:
        if classifier.output is None:
            raise GradientError(f"the model does not classify: {classifier.reason}")
        self.facts, self.graph = facts, write
        self.value, self.kind = decided_scores(facts, classifier.output, classifier.scores)
        self.shape = facts.shape(self.value)
        self.count = int(np.prod(self.shape[1:]))
        if self.shape[:1] == () or self.shape[0] != -1 or self.count < 1:
            raise GradientError(f"the output '{classifier.output}' holds no row of scores per image")
        self.held = facts.type(self.value)
        self.type = worked_in(self.held)

    def write(self, classes: str, single: bool = False) -> Decision:
        """The nodes, see `add_decision`."""
        write = self.graph
        scores = as_type(write, write.op("Reshape", self.value, write.constant([-1, self.count])), self.held, self.type)
        one = self.kind in SINGLE
        ranked = self._both(scores) if one else scores
        ids = chosen_classes(write, ranked, classes, 2 if one else self.count)
        if one:
            twice = write.op("Mul", ids, write.constant(2))
            sign = write.op("Cast", write.op("Sub", twice, write.constant(1)), to=self.type)
            value, steep = self._single(scores)
            decision, slope = write.op("Mul", value, sign), write.unsqueeze(write.op("Mul", steep, sign), 2)
        elif self.kind == "logits":
            decision, slope = self._log_odds(scores, ids)
        else:
            decision, slope = self._own(scores, ids)
        target = write.constant([-1, *self.shape[1:]])
        cotangent = as_type(write, write.op("Reshape", slope, target), self.type, self.held)
        decision = as_type(write, decision, self.type, TensorProto.FLOAT)
        owners = None if single else owners_of(write, classes)
        return Decision(ids, decision, {self.value: cotangent}, owners)

    def _number(self, value: float) -> str:
        return self.graph.constant(np.asarray(value, dtype=helper.tensor_dtype_to_np_dtype(self.type)))

    def _single(self, scores: str) -> tuple[str, str]:
        """The logit of class 1, (N, 1), and its slope by the number that the model gives."""
        write = self.graph
        if self.kind == "logit":
            return scores, self._number(1)
        share = write.op("Min", write.op("Max", scores, self._number(LEAST)), self._number(1 - ULP))
        rest = self._rest(share)
        logit = write.op("Sub", write.op("Log", share), write.op("Log", rest))
        return logit, write.op("Reciprocal", write.op("Mul", share, rest))

    def _both(self, scores: str) -> str:
        """Scores of the two classes that one number decides between."""
        other = self.graph.op("Neg", scores) if self.kind == "logit" else self._rest(scores)
        return self.graph.op("Concat", other, scores, axis=1)

    def _rest(self, share: str) -> str:
        return self.graph.op("Sub", self._number(1), share)

    def _is(self, ids: str) -> str:
        """Where a class is the one asked about, (N, J, C)."""
        write = self.graph
        places = write.op("Reshape", write.constant(list(range(self.count))), write.constant([1, 1, self.count]))
        return write.op("Equal", write.unsqueeze(ids, 2), places)

    def _log_odds(self, scores: str, ids: str) -> tuple[str, str]:
        """z_c - log sum exp of the others; by z: 1 at c, minus the others' softmax elsewhere."""
        write, own = self.graph, self._is(ids)
        others = write.op("Where", own, self._number(-np.inf), write.unsqueeze(scores, 1))
        value = write.op("GatherElements", scores, ids, axis=1)
        if self.type == TensorProto.FLOAT:
            level = write.reduce("ReduceLogSumExp", others, [2], keep=False)
            odds = write.op("Softmax", others, axis=2)
        else:
            top = write.reduce("ReduceMax", others, [2])
            powers = write.op("Exp", write.op("Sub", others, top))
            total = write.sum(powers, [2])
            level = write.op("Squeeze", write.op("Add", write.op("Log", total), top), write.constant([2]))
            odds = write.op("Div", powers, total)
        return write.op("Sub", value, level), write.op("Where", own, self._number(1), write.op("Neg", odds))

    def _own(self, scores: str, ids: str) -> tuple[str, str]:
        """What hangs on the class's own number alone; a probability rounded to 1 hangs on nothing any more."""
        write, zero = self.graph, self._number(0)
        value = write.op("GatherElements", scores, ids, axis=1)
        if self.kind == "labels":
            decision, slope = value, self._number(1)
        elif self.kind == "log-probabilities":
            rest = write.op("Sub", self._number(1), write.op("Exp", value))
            rest = write.op("Max", rest, self._number(LEAST))
            decision = write.op("Sub", value, write.op("Log", rest))
            slope = write.unsqueeze(write.op("Reciprocal", rest), 2)
        else:
            share = write.op("Max", value, self._number(LEAST))
            rest = write.op("Max", write.op("Sub", self._number(1), value), self._number(LEAST))
            decision = write.op("Sub", write.op("Log", share), write.op("Log", rest))
            slope = write.op("Reciprocal", write.op("Mul", share, rest))
            slope = write.unsqueeze(write.op("Where", write.op("Less", value, self._number(1)), slope, zero), 2)
        return decision, write.op("Where", self._is(ids), slope, zero)


def decided_scores(facts: GraphFacts, output: str, kind: str) -> tuple[str, str]:
    """The value that a decision is taken from, and how: the logits behind a softmax or a sigmoid, where they are.

    Logits that the graph computes in float32 and gives in another type are taken before they are rounded.

    Args:
        facts: of the graph.
        output: name of the output that classifies.
        kind: what its numbers are, one of `SCORES`.

    Returns:
        The value, and what its numbers are; ``labels`` are logits here, as ``logits`` and ``logit`` are.
    """
    at, nodes, producer = output, facts.topology.nodes, facts.topology.producer
    if kind in ("logits", "logit"):
        while at in producer and nodes[producer[at]].op_type == "Cast" and facts.type(at) != TensorProto.FLOAT:
            at = nodes[producer[at]].input[0]
        return (at if facts.type(at) == TensorProto.FLOAT else output), kind
    while at in producer and nodes[producer[at]].op_type in PASSING:
        at = nodes[producer[at]].input[0]
    node = nodes[producer[at]] if at in producer else None
    if node is None:
        return output, kind
    if node.op_type in ("Softmax", "LogSoftmax") and kind in ("probabilities", "log-probabilities"):
        return node.input[0], "logits"
    if node.op_type == "Sigmoid" and kind in ("labels", "sigmoid"):
        return node.input[0], "labels" if kind == "labels" else "logit"
    return output, "probabilities" if kind == "labels" else kind
