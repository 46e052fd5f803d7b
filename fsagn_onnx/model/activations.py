"""From a conv to its tap: the norm and the activation that follow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from .topology import Topology

__all__ = ["Tail", "Values", "follow_tail"]

ACTIVATIONS = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid", "HardSigmoid", "Gelu", "Elu", "Selu", "Celu", "Mish",
    "Swish", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
})  # fmt: skip
"""Ops that are an activation by themselves, of their first input."""
NORMS = frozenset({"BatchNormalization", "InstanceNormalization", "GroupNormalization"})
AFFINE = frozenset({"Mul", "Add", "Sub", "Div"})
PASSING = frozenset({"Identity", "Dropout"})
QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
ELEMENTWISE = ACTIVATIONS | AFFINE | {"Erf", "Exp", "Log", "Pow", "Neg", "Max", "Min", "Sqrt", "Reciprocal", "Identity"}
"""Ops that an activation may be built of."""
MAX_PATTERN = 12
"""Nodes of the largest activation pattern that is looked for (Gelu by tanh has 9)."""


@dataclass(frozen=True)
class Tail:
    """Where a conv layer ends: the value to tap and the ops up to it, joined by "+"."""

    value: str
    op: str


@dataclass(frozen=True, eq=False)
class Values:
    """What is known of the values of a graph."""

    topology: Topology
    shapes: Mapping[str, tuple[int, ...]]

    def constant(self, name: str) -> bool:
        """The value is the same for every input (a left-out optional input is)."""
        return not name or name in self.topology.constants

    def _size(self, name: str) -> tuple[int, ...] | None:
        if name in self.topology.initializers:
            return tuple(self.topology.initializers[name].dims)
        return self.shapes.get(name)

    def scalar(self, name: str) -> bool:
        """The value is a constant of one element."""
        size = self._size(name)
        return self.constant(name) and size is not None and math.prod(size) == 1

    def per_channel(self, name: str) -> bool:
        """The value is a constant that broadcasts over the places of an NCHW feature map: (), (C, 1, 1)."""
        size = self._size(name)
        if not self.constant(name) or size is None:
            return False
        return math.prod(size) == 1 or (len(size) in (3, 4) and size[-2:] == (1, 1) and size[:-3] in ((), (1,)))

    def users(self, name: str) -> tuple[onnx.NodeProto, ...]:
        """The nodes that read a value."""
        return tuple(self.topology.nodes[index] for index in self.topology.consumers.get(name, ()))


def follow_tail(values: Values, conv: int) -> Tail:
    """Follow the conv of the given node number through norms, constants per channel, and one activation.

    The walk ends where a value is used by anything else, is an output of the graph, or at the activation. The
    feature map of a quantised conv is a float value: integers are passed over.
    """
    node = values.topology.nodes[conv]
    value = at = node.output[0]
    ops = [node.op_type]
    if node.op_type == "QLinearConv":
        view = _float_view(values, node)
        value = at = view or value
        if view is None or len(values.users(node.output[0])) != 1:
            return Tail(value, node.op_type)
    elif node.op_type == "ConvInteger":
        value = at = _rescaled_integers(values, at)
    while at not in values.topology.outputs:
        pattern = _pattern(values, at)
        if pattern is not None:
            tail = Tail(pattern.value, "+".join([*ops, pattern.op]))
            return _rescaled(values, tail)
        users = values.users(at)
        if len(users) != 1:
            break
        step = users[0]
        kind = step.op_type
        if kind in ACTIVATIONS and step.input[0] == at and _plain_inputs(values, step):
            return Tail(step.output[0], "+".join([*ops, kind]))
        if kind in PASSING:
            at = step.output[0]
            continue
        if kind in QUANTISING and step.input[0] == at and _plain_inputs(values, step):
            at = step.output[0]
            value = at if kind == "DequantizeLinear" else value
            continue
        if not _is_norm(values, step, at):
            break
        ops.append(kind)
        at = value = step.output[0]
    return Tail(value, "+".join(ops))


def _float_view(values: Values, conv: onnx.NodeProto) -> str | None:
    """The value that dequantises a QLinearConv's output by the conv's own scale and zero point."""
    for step in values.users(conv.output[0]):
        if step.op_type == "DequantizeLinear" and list(step.input) == [conv.output[0], *conv.input[6:8]]:
            return str(step.output[0])
    return None


def _rescaled_integers(values: Values, at: str) -> str:
    """Behind a ConvInteger: Cast to float, times the scale, which dynamic quantisation computes."""
    for kind in ("Cast", "Mul"):
        users = values.users(at)
        if len(users) != 1 or users[0].op_type != kind:
            break
        at = users[0].output[0]
    return at


def _plain_inputs(values: Values, node: onnx.NodeProto) -> bool:
    return all(values.constant(name) for name in node.input[1:])


def _is_norm(values: Values, node: onnx.NodeProto, at: str) -> bool:
    """A norm with constant parameters, or arithmetic with a constant per channel."""
    if node.op_type in NORMS:
        return node.input[0] == at and _plain_inputs(values, node) and sum(map(bool, node.output)) == 1
    if node.op_type in AFFINE:
        rest = [name for name in node.input if name != at]
        return len(rest) == 1 and values.per_channel(rest[0])
    return False


def _pattern(values: Values, start: str) -> Tail | None:
    """The smallest closed group of elementwise nodes that turns `start`, read more than once, into one value.

    Closed: nothing outside of the group reads `start` or what the group makes, except the group's last value;
    all other inputs are constants per channel. That covers x * sigmoid(x), x * tanh(softplus(x)), x * clip(x
    + 3) / 6 and both forms of Gelu. None if there is no such group.
    """
    topology = values.topology
    if len(topology.consumers.get(start, ())) < 2:
        return None
    inside = {start}
    group: list[onnx.NodeProto] = []
    numbers: set[int] = set()
    first = topology.consumers[start][0]
    for number in range(first, len(topology.nodes)):
        node = topology.nodes[number]
        if not any(name in inside for name in node.input):
            continue
        fits = all(name in inside or not name or values.per_channel(name) for name in node.input)
        if node.op_type not in ELEMENTWISE or not fits or len(group) == MAX_PATTERN:
            return None
        group.append(node)
        numbers.add(number)
        inside.update(node.output[:1])
        loose = {name for name in inside if not numbers.issuperset(topology.consumers.get(name, ()))}
        loose.update(name for name in inside if name in topology.outputs or name not in topology.consumers)
        if loose == {node.output[0]}:
            return Tail(node.output[0], _name_of(group))
    return None


def _name_of(group: list[onnx.NodeProto]) -> str:
    ops = {node.op_type for node in group}
    for name, needed in (
        ("Mish", {"Softplus", "Tanh"}),
        ("Gelu", {"Erf"}),
        ("Gelu", {"Tanh", "Pow"}),
        ("HardSwish", {"HardSigmoid", "Mul"}),
        ("Swish", {"Sigmoid", "Mul"}),
        ("HardSwish", {"Clip", "Mul"}),
        ("Gelu", {"Tanh", "Mul", "Add"}),
    ):
        if needed <= ops:
            return name
    return "+".join(node.op_type for node in group)


def _rescaled(values: Values, tail: Tail) -> Tail:
    """Take one product with a constant scalar along: the / 6 of HardSwish, the * 0.5 of Gelu."""
    users = values.users(tail.value)
    if tail.value in values.topology.outputs or len(users) != 1:
        return tail
    step, rest = users[0], [name for name in users[0].input if name != tail.value]
    divided = step.op_type == "Div" and step.input[0] == tail.value
    if (divided or step.op_type == "Mul") and len(rest) == 1 and values.scalar(rest[0]):
        return Tail(step.output[0], tail.op)
    return tail
