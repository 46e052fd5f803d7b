"""The vector-Jacobian product as nodes of the graph: from some values back to others, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import onnx
from onnx import TensorProto

from ..errors import GradientError
from ..model.topology import node_inputs, subgraphs
from .facts import FLOATS, QUANTISED, GraphFacts
from .registry import STOPS, GradientRule, find_rule
from .step import BackwardStep, Cotangent, Forward
from .writer import NodeWriter

__all__ = ["PREFIX", "Backward", "add_gradients", "missing_rules"]

PREFIX: Final = "fsagn/gradient/"
"""What names of appended values begin with, unless told."""
SUMS: Final = frozenset({"ConvInteger", "MatMulInteger"})
"""Ops whose int32 results are sums of quantised numbers."""

Sizes = Mapping[str, Sequence[int]]


def add_gradients(
    proto: onnx.ModelProto,
    cotangents: Mapping[str, str],
    by: Sequence[str],
    *,
    owners: str | None = None,
    sizes: Sizes | None = None,
    prefix: str = PREFIX,
) -> dict[str, str]:
    """Append nodes that compute sum over v of <cotangent of v, dv/dw> for every w in ``by``.

    Forward values are shared, nothing is computed that is not asked for, and the batch stays free. A MaxPool gets its
    second output.

    Args:
        proto: a model in topological order at opset 13 or later; changed.
        cotangents: value -> name of a value of its shape, with rows for images.
        by: values, each one a variable of its own.
        owners: name of an int64 value (M,): row m of the cotangents belongs to image ``owners[m]``; None: M = N.
        sizes: input -> shape of one sample, where the graph leaves it open.
        prefix: what names of new nodes and values begin with.

    Returns:
        w -> name of its gradient, of w's shape with M for N.

    Raises:
        GradientError: an op on the way has no rule, a shape is not known, a value leads nowhere, or the opset is older.
    """
    back = Backward(proto, sizes, prefix)
    return {name: back.full(name, given) for name, given in back.run(cotangents, by, owners).items()}


def missing_rules(
    proto: onnx.ModelProto, targets: Iterable[str], by: Iterable[str], sizes: Sizes | None = None
) -> list[str]:
    """Nodes between ``by`` and ``targets`` that no gradient can be written of, as "op 'value'".

    Args:
        proto: a model; not changed.
        targets: the values whose gradients are asked for.
        by: the values by which.
        sizes: as for `add_gradients`.
    """
    found = _Ways(GraphFacts(proto, sizes), by).missing(targets)
    return [f"{node.domain}.{node.op_type} '{node.output[0]}'".lstrip(".") for node in found]


class _Ways:
    """Which values hang on some others by differentiable ops."""

    def __init__(self, facts: GraphFacts, by: Iterable[str]) -> None:
        self.facts, self.active = facts, set(by)
        self.rules: dict[int, GradientRule | None] = {}
        for number, node in enumerate(facts.topology.nodes):
            if node.op_type in STOPS or not any(name in self.active for name in node_inputs(node)):
                continue
            rule = None if any(True for _ in subgraphs(node)) else find_rule(node.op_type, node.domain)
            if rule is not None and not self.wanted(node, rule):
                continue
            self.rules[number] = rule
            carried = FLOATS | QUANTISED | ({TensorProto.INT32} if node.op_type in SUMS else set())
            kept = None if rule is None else rule.outputs
            made = [name for index, name in enumerate(node.output) if name and (kept is None or index in kept)]
            self.active.update(name for name in made if facts.type(name) in carried)

    def wanted(self, node: onnx.NodeProto, rule: GradientRule) -> frozenset[int]:
        """Numbers of the inputs whose gradients are needed."""
        return frozenset(
            index for index, name in enumerate(node.input) if name in self.active and index not in rule.ignored
        )

    def missing(self, targets: Iterable[str]) -> Iterator[onnx.NodeProto]:
        """Nodes without a rule on the way from the targets back."""
        needed = self.facts.topology.ancestors(name for name in targets if name in self.active)
        for number in sorted(needed & self.rules.keys()):
            if self.rules[number] is None:
                yield self.facts.topology.nodes[number]


class Backward:
    """Writes gradients into one graph.

    Attributes:
        facts: of the graph before anything is appended.
        write: appends to it.

    Args:
        proto: see `add_gradients`; changed.
        sizes: as there.
        prefix: as there.
        facts: of the graph, where they are known already.
    """

    def __init__(
        self, proto: onnx.ModelProto, sizes: Sizes | None = None, prefix: str = PREFIX, facts: GraphFacts | None = None
    ) -> None:
        self.facts = facts or GraphFacts(proto, sizes)
        self.write = NodeWriter(proto, prefix)
        self._pending: dict[str, list[Cotangent]] = {}
        self._forward: Forward | None = None

    def run(self, cotangents: Mapping[str, str], by: Sequence[str], owners: str | None = None) -> dict[str, Cotangent]:
        """As `add_gradients`, but gradients may be kept once along axes on which they are the same.

        Raises:
            GradientError: as there.
        """
        ways = _Ways(self.facts, by)
        for node in ways.missing(cotangents):
            kind = f"{node.domain}.{node.op_type}".lstrip(".")
            raise GradientError(
                f"no gradient of {kind} '{node.output[0]}': this operator has no rule; choose a layer behind it"
            )
        self._forward = Forward(self.facts, self.write, owners, owners or self.facts.image or next(iter(cotangents)))
        self._pending = {name: [Cotangent(given)] for name, given in cotangents.items() if name in ways.active}
        done: dict[str, Cotangent] = {}
        nodes = self.facts.topology.nodes
        for number in sorted(ways.rules, reverse=True):
            node, rule = nodes[number], ways.rules[number]
            outputs = list(node.output)
            done.update((name, self._joined(name)) for name in outputs if name in by and name in self._pending)
            if rule is not None and any(name in self._pending for name in outputs):
                self._back(node, rule, ways.wanted(node, rule))
        done.update((name, self._joined(name)) for name in by if name in self._pending)
        for name in by:
            if name not in done:
                raise GradientError(f"the value '{name}' leads to none of {', '.join(map(repr, cotangents))}")
        return {name: done[name] for name in by}

    def full(self, name: str, given: Cotangent) -> str:
        """The gradient of a value, written out."""
        value = given.value
        if given.narrow and self._forward is not None:
            value = self._forward.expanded(value, self.facts.shape(name), sorted(given.narrow))
        return value

    def _back(self, node: onnx.NodeProto, rule: GradientRule, wanted: frozenset[int]) -> None:
        if self._forward is None:
            raise AssertionError("run comes first")
        step = BackwardStep(node, self._forward, [None] * len(node.output), wanted)
        if rule.inputs is not None and wanted - rule.inputs:
            raise step.refuse(f"its input '{node.input[min(wanted - rule.inputs)]}' hangs on the layer too")
        cotangents: list[Cotangent | None] = []
        for name in node.output:
            given = self._taken(name) if name in self._pending else None
            if given is not None and not rule.narrow and given.narrow:
                given = Cotangent(step.full(given, self.facts.shape(name)))
            if given is not None and not rule.scaled:
                given = step.plain(given)
            cotangents.append(given)
        step.cotangents = tuple(cotangents)
        for index, result in rule.write(step).items():
            made = Cotangent(result) if isinstance(result, str) else result
            if index in wanted:
                self._pending.setdefault(node.input[index], []).append(made)

    def _joined(self, name: str) -> Cotangent:
        """The sum of what came back to a value, without a factor left to multiply."""
        parts = self._pending[name]
        if len(parts) > 1 or parts[0].scale:
            parts = [
                Cotangent(self.write.op("Mul", part.value, part.scale), part.narrow) if part.scale else part
                for part in parts
            ]
        whole = parts[0]
        for part in parts[1:]:
            whole = Cotangent(self.write.op("Add", whole.value, part.value), whole.narrow & part.narrow)
        self._pending[name] = [whole]
        return whole

    def _taken(self, name: str) -> Cotangent:
        """As `_joined`, but a single part keeps its factor."""
        if len(self._pending[name]) > 1:
            return self._joined(name)
        return self._pending[name][0]
