"""Where the numbers of a value come from: its columns, what squashed them, the constants on their way."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from .content_hash import array_of
from .outputs import DENSE, PASSING
from .topology import Topology, node_inputs

__all__ = ["SQUASHING", "ValuePart", "ValueTrace"]

CUTTING: Final = frozenset({"Split", "Slice", "Gather", "GatherND", "GatherElements", "Squeeze", "Unsqueeze"})
"""Ops that take a part of numbers as they are."""
SQUASHING: Final = frozenset({"Sigmoid", "HardSigmoid"})
CHOOSING: Final = frozenset({"TopK", "NonMaxSuppression", "NonZero", "ArgMax", "Loop", "Compress"})
"""Ops that choose among boxes."""


@dataclass(frozen=True)
class ValuePart:
    """A part of a value along one axis.

    Attributes:
        value: that holds it.
        axis: of the value that it lies along.
        width: numbers along that axis, or None.
        whole: the value holds it for all places, not for one level of several that are joined.
    """

    value: str
    axis: int
    width: int | None
    whole: bool = True


class ValueTrace:
    """Follows values of a graph back to what made them.

    Args:
        topology: of the graph; large weights are not needed.
        shapes: of its values, as far as they are known.
        varying: values that hang on the image.
    """

    def __init__(self, topology: Topology, shapes: Mapping[str, tuple[int, ...]], varying: Collection[str]) -> None:
        self.topology, self.shapes, self._varying = topology, shapes, varying

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a value."""
        at = self.topology.producer.get(name)
        return None if at is None else self.topology.nodes[at]

    def behind(self, name: str, ops: Iterable[str] = PASSING) -> str:
        """The value behind nodes of some ops, along their first input."""
        ops = frozenset(ops)
        while (node := self.maker(name)) is not None and node.op_type in ops and node.input:
            name = node.input[0]
        return name

    def columns(self, name: str, axis: int) -> list[ValuePart]:
        """The parts that a value is put together of along an axis; itself where it is not."""
        return list(self._columns(name, axis, whole=True))

    def _columns(self, name: str, axis: int, *, whole: bool) -> Iterator[ValuePart]:
        node, shape = self.maker(name), self.shapes.get(name)
        if node is not None and node.op_type == "Concat":
            joined = next((item.i for item in node.attribute if item.name == "axis"), 0)
            joined = joined % len(shape) if shape else joined
            if joined == axis:
                for value in node.input:
                    yield from self._columns(value, axis, whole=whole)
            else:
                first = next((value for value in node.input if value in self._varying), node.input[0])
                yield from self._columns(first, axis, whole=False)
            return
        before = self._carried(node, axis) if node is not None and node.op_type in PASSING else None
        if node is not None and before is not None:
            yield from self._columns(node.input[0], before, whole=whole)
            return
        yield ValuePart(name, axis, shape[axis] if shape and axis < len(shape) else None, whole)

    def _carried(self, node: onnx.NodeProto, axis: int) -> int | None:
        """The axis of a passing node's input that becomes this axis of its output."""
        if node.op_type == "Transpose":
            perm = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
            if perm is None:
                rank = len(self.shapes.get(node.input[0], ()))
                return rank - 1 - axis if rank else None
            return perm[axis] if axis < len(perm) else None
        if node.op_type not in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            return axis
        before, after = self.shapes.get(node.input[0]), self.shapes.get(node.output[0])
        if before is None or after is None or axis >= len(after):
            return None
        ahead = math.prod(after[:axis])
        for place, side in enumerate(before):
            if side == after[axis] and math.prod(before[:place]) == ahead:
                return place
        return None

    def squashed(self, name: str) -> str | None:
        """The value that a sigmoid squashed to make these numbers (or of which they are a part); None without one."""
        while (node := self.maker(name)) is not None:
            if node.op_type in SQUASHING:
                return str(node.input[0])
            if node.op_type == "Concat":  # levels, or chosen ones
                name = next((value for value in node.input if value in self._varying), node.input[0])
            elif node.op_type in PASSING | CUTTING and node.input:
                name = node.input[0]
            else:
                break
        return None

    def softened(self, name: str) -> str | None:
        """The value that a softmax made these numbers of; None without one."""
        node = self.maker(self.behind(name, PASSING | CUTTING))
        return node.input[0] if node is not None and node.op_type == "Softmax" else None

    def raw(self, name: str) -> bool:
        """Whether these numbers come out of convolutions as they are: nothing has decoded them."""
        stack, seen, found = [name], {name}, False
        while stack:
            node = self.maker(stack.pop())
            if node is None:
                continue
            if node.op_type in DENSE or _adds_bias(node, self._varying):
                found = True
                continue
            if node.op_type not in PASSING | CUTTING | SQUASHING | {"Concat"}:
                return False
            ahead = [value for value in node.input if value in self._varying and value not in seen]
            seen.update(ahead)
            stack += ahead
        return found

    def chosen(self, name: str) -> bool:
        """Whether boxes are chosen among others on the way to a value."""
        nodes = self.topology.nodes
        return any(nodes[index].op_type in CHOOSING for index in self.topology.ancestors([name]))

    def counted(self, name: str) -> bool:
        """Whether numbers are those of places or classes: found by ArgMax, TopK or NonMaxSuppression."""
        ops = PASSING | CUTTING | {"Div", "Mod", "Sub", "Add", "Floor", "Mul", "Concat"}
        while (node := self.maker(name)) is not None:
            if node.op_type in ("ArgMax", "NonMaxSuppression"):
                return True
            if node.op_type == "TopK":
                return bool(name == node.output[1])
            if node.op_type not in ops or not node.input:
                return False
            name = node.input[0]
        return False

    def largest(self, name: str) -> float | None:
        """The largest floating-point constant between the convolutions and a value; None where there is none."""
        numbers = [abs(number) for tensor in self._constants(name) if (number := _extreme(tensor)) is not None]
        return max(numbers, default=None)

    def _constants(self, name: str) -> Iterator[onnx.TensorProto]:
        stack, seen = [name], {name}
        while stack:
            value = stack.pop()
            if value in self.topology.tensors:
                yield self.topology.tensors[value]
                continue
            node = self.maker(value)
            if node is None or node.op_type in DENSE:
                continue
            yield from (item.t for item in node.attribute if item.HasField("t"))
            ahead = [item for item in node_inputs(node) if item not in seen]
            seen.update(ahead)
            stack += ahead

    def corners(self, name: str, axis: int) -> bool | None:
        """Whether four numbers are two corners (True) or a centre and sizes (False), as the last ops tell."""
        parts = self.columns(name, axis)
        widths = [part.width for part in parts]
        if widths not in ([2, 2], [1, 1, 1, 1]):
            return None
        scaled = PASSING | {"Mul", "Div", "Clip"}
        first, last = (self.maker(self.behind(parts[place].value, scaled)) for place in (0, -1))
        if first is None or last is None:
            return None
        if first.op_type == "Sub" and last.op_type == "Add":
            return True
        return False if last.op_type in ("Sub", "Exp", "Pow", "Sigmoid") else None


def _adds_bias(node: onnx.NodeProto, varying: Collection[str]) -> bool:
    return node.op_type == "Add" and sum(value in varying for value in node.input) == 1


def _extreme(tensor: onnx.TensorProto) -> float | None:
    floating = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    if not floating or tensor.data_location == TensorProto.EXTERNAL:
        return None
    numbers = array_of(tensor)
    finite = numbers[np.isfinite(numbers) & (np.abs(numbers) < 1e6)]
    return float(np.abs(finite).max()) if finite.size else None
