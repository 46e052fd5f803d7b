"""From a conv to its tap: the norm and the activation that follow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from .content_hash import array_of
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
CLAMPS = frozenset({"Relu", "Clip", "Min", "Max"})
"""Ops that cut values off; of several in a row the last one is the activation (ReLU6 as Relu and Min)."""
COMPARING = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Cast"})
"""Ops that an activation may be built of, but not end in: what they make may be no float."""
ELEMENTWISE = ACTIVATIONS | AFFINE | COMPARING | QUANTISING | {
    "Abs", "Erf", "Exp", "Identity", "Log", "Max", "Min", "Neg", "Pow", "Reciprocal", "Sqrt", "Where",
}  # fmt: skip
"""Ops that an activation may be built of."""
UNFINISHED = COMPARING | {"QuantizeLinear"}
INTEGER_STEPS = AFFINE | CLAMPS | PASSING | {"Cast"}
"""Ops between a ConvInteger and its float feature map."""
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

    def broadcast(self, name: str) -> bool:
        """The value, constant or not, is one number, or one per channel."""
        size = self._size(name)
        return size is not None and (math.prod(size) == 1 or (len(size) in (3, 4) and size[-2:] == (1, 1)))

    def users(self, *names: str) -> tuple[onnx.NodeProto, ...]:
        """The nodes that read a value, or one of some values, in the file's order."""
        numbers = {index for name in names for index in self.topology.consumers.get(name, ())}
        return tuple(self.topology.nodes[index] for index in sorted(numbers))

    def same(self, first: str, second: str) -> bool:
        """Two names of one value, or of constants that are equal."""
        tensors = [self.topology.tensors.get(name) for name in (first, second)]
        if first == second or None in tensors:
            return first == second
        left, right = (array_of(tensor) for tensor in tensors if tensor is not None)
        return left.dtype == right.dtype and bool(np.array_equal(left.reshape(-1), right.reshape(-1)))


def follow_tail(values: Values, conv: int) -> Tail:
    """Follow the conv of the given node number through norms, constants per channel, and one activation.

    The walk ends where a value is used by anything else, is an output of the graph, or at the activation. The
    feature map of a quantised conv is a float value: integers are passed over.
    """
    node = values.topology.nodes[conv]
    value, ops = node.output[0], [node.op_type]
    at: tuple[str, ...] = (value,)
    if node.op_type == "QLinearConv":
        views = _float_views(values, node)
        if not views:
            return Tail(value, node.op_type)
        value, at = views[0], views
        if len(values.users(node.output[0])) != len(views):
            return Tail(value, node.op_type)
    elif node.op_type == "ConvInteger":
        found = _rescaled_integers(values, value)
        if found.op:
            return Tail(found.value, f"{node.op_type}+{found.op}")
        value, at = found.value, (found.value,)
    while not values.topology.outputs.intersection(at):
        pattern = _pattern(values, at)
        if pattern is not None:
            tail = Tail(pattern.value, "+".join([*ops, pattern.op]))
            return _rescaled(values, tail)
        users = values.users(*at)
        step = users[0] if users else None
        if step is None or not all(_alike(values, step, user, at) for user in users):
            break
        kind = step.op_type
        if kind in QUANTISING and step.input[0] in at and _plain_inputs(values, step):
            at = tuple(user.output[0] for user in users)
            value = at[0] if kind == "DequantizeLinear" else value
            continue
        if len(users) != 1:
            break
        if kind in PASSING:
            at = (step.output[0],)
            continue
        if _is_clamp(values, step, at):
            return _clamped(values, step, ops)
        if kind in ACTIVATIONS and step.input[0] in at and _plain_inputs(values, step):
            return Tail(step.output[0], "+".join([*ops, kind]))
        if not _is_norm(values, step, at):
            break
        ops.append(kind)
        value = step.output[0]
        at = (value,)
    return Tail(value, "+".join(ops))


def _alike(values: Values, first: onnx.NodeProto, second: onnx.NodeProto, at: tuple[str, ...]) -> bool:
    """Whether two nodes make the same of one value: quantisers write a pair of Q and DQ for each reader."""
    if first is second:
        return True
    if first.op_type != second.op_type or first.op_type not in QUANTISING or len(first.input) != len(second.input):
        return False
    read = first.input[0] in at and second.input[0] in at
    plain = all(values.same(*pair) for pair in zip(first.input[1:], second.input[1:], strict=True))
    return read and plain and list(first.attribute) == list(second.attribute)


def _float_views(values: Values, conv: onnx.NodeProto) -> tuple[str, ...]:
    """The values that dequantise a QLinearConv's output by the conv's own scale and zero point."""
    found = []
    for step in values.users(conv.output[0]):
        if step.op_type == "DequantizeLinear" and step.input[0] == conv.output[0] and len(step.input) > 1:
            zero = step.input[2] if len(step.input) > 2 else ""
            if values.same(step.input[1], conv.input[6]) and values.same(zero, conv.input[7]):
                found.append(str(step.output[0]))
    return tuple(found)


def _is_clamp(values: Values, node: onnx.NodeProto, at: tuple[str, ...]) -> bool:
    """A Relu or Clip with constant bounds, or a Min or Max with constant scalars."""
    if node.op_type not in CLAMPS:
        return False
    if node.op_type in ("Relu", "Clip"):
        return node.input[0] in at and _plain_inputs(values, node)
    rest = [name for name in node.input if name not in at]
    return len(rest) == len(node.input) - 1 > 0 and all(values.scalar(name) for name in rest)


def _clamped(values: Values, node: onnx.NodeProto, ops: list[str]) -> Tail:
    """The activation made of a clamp and those behind it, integers in between or not."""
    named, value, at = [node.op_type], node.output[0], node.output[0]
    while at not in values.topology.outputs:
        users = values.users(at)
        if len(users) != 1:
            break
        step = users[0]
        again = step.op_type == "Relu" and "Relu" in named  # changes nothing
        if again or step.op_type in PASSING or (step.op_type in QUANTISING and _plain_inputs(values, step)):
            at = step.output[0]
            continue
        if not _is_clamp(values, step, (at,)):
            break
        named.append(step.op_type)
        at = value = step.output[0]
    return Tail(value, "+".join([*ops, *named]))


def _rescaled_integers(values: Values, conv: str) -> Tail:
    """Behind a ConvInteger: a bias, Cast to float, and the scales, which dynamic quantisation computes.

    Returns:
        The float value, and the activation if it was met among the integers; the conv's own value where no Cast is.
    """
    at, value, cast, clamps = conv, conv, "", ""
    while at not in values.topology.outputs:
        users = values.users(at)
        if len(users) != 1 or users[0].op_type not in INTEGER_STEPS:
            break
        step = users[0]
        rest = [name for name in step.input if name != at]
        if step.op_type == "Cast":
            if cast:
                break
            cast = step.output[0]
        elif step.op_type in CLAMPS:
            if cast or not _is_clamp(values, step, (at,)):
                break
            clamps = "+".join(filter(None, [clamps, step.op_type]))
        elif step.op_type in ("Mul", "Div"):
            if len(rest) != 1 or not values.broadcast(rest[0]) or (step.op_type == "Div" and step.input[0] != at):
                break
        elif step.op_type == "Add" and not cast and len(rest) == 1 and values.broadcast(rest[0]):
            pass  # a bias in whole numbers of the scale, which old quantisers compute for each picture
        elif step.op_type not in PASSING and not (_is_norm(values, step, (at,)) and not cast):
            break
        at = step.output[0]
        value = value if step.op_type in PASSING else at
    return Tail(value if cast else conv, clamps if cast else "")


def _plain_inputs(values: Values, node: onnx.NodeProto) -> bool:
    return all(values.constant(name) for name in node.input[1:])


def _is_norm(values: Values, node: onnx.NodeProto, at: tuple[str, ...]) -> bool:
    """A norm with constant parameters, or arithmetic with a constant per channel."""
    if node.op_type in NORMS:
        return node.input[0] in at and _plain_inputs(values, node) and sum(map(bool, node.output)) == 1
    if node.op_type in AFFINE:
        rest = [name for name in node.input if name not in at]
        return len(rest) == 1 and values.per_channel(rest[0])
    return False


def _pattern(values: Values, start: tuple[str, ...]) -> Tail | None:
    """The smallest closed group of elementwise nodes that turns `start`, read more than once, into one value.

    Closed: nothing outside of the group reads `start` or what the group makes, except the group's last value;
    all other inputs are constants per channel. That covers x * sigmoid(x), x * tanh(softplus(x)), x * clip(x
    + 3) / 6, both forms of Gelu, and leaky ReLUs by Max, by Where and by two ReLUs. None if there is no such group.

    Args:
        values: Of the graph.
        start: Names of the value, one or several that are equal.
    """
    topology = values.topology
    readers = sorted({index for name in start for index in topology.consumers.get(name, ())})
    if len(readers) < 2:
        return None
    inside = set(start)
    group: list[onnx.NodeProto] = []
    numbers: set[int] = set()
    first = readers[0]
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
        if loose == {node.output[0]} and node.op_type not in UNFINISHED:
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
        ("HardSwish", {"Min", "Mul", "Add"}),
        ("Swish", {"Exp", "Neg", "Mul"}),
        ("Swish", {"Exp", "Neg", "Div"}),
        ("LeakyRelu", {"Where", "Mul"}),
        ("LeakyRelu", {"Max", "Mul"}),
        ("PRelu", {"Relu", "Neg", "Add"}),
        ("PRelu", {"Relu", "Neg", "Sub"}),
        ("PRelu", {"Relu", "Abs", "Sub"}),
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
