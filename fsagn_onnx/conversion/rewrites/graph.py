"""A mutable ONNX graph for rewrites: nodes, constants, who makes and who uses a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...model.cut import without_data
from ...model.fresh_names import FreshNames
from ...model.opset import opset_of
from ...model.topology import copied_node, subgraphs

__all__ = ["Graph", "Rewrite", "attribute", "is_op"]

Array = npt.NDArray[Any]


class Graph:
    """The nodes and constants of one ModelProto, for rewriting.

    Attributes:
        nodes: in topological order.
        constants: initializers by name, not copied. Those nobody uses are dropped by `to_proto`.
        inputs: names of the graph inputs that are no initializers.
        outputs: names of the graph outputs; rewrites keep each of them, and what it computes.
        opset: version of the default domain.
    """

    def __init__(self, proto: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto] | None = None) -> None:
        """Of a model; `weights` stand in for the initializers that it has without their data (see `cut`)."""
        self._proto = proto
        self.nodes: list[onnx.NodeProto] = [copied_node(node) for node in proto.graph.node]
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in proto.graph.initializer}
        if weights is not None:
            self.constants = {name: weights.get(name, tensor) for name, tensor in self.constants.items()}
        self.inputs = tuple(v.name for v in proto.graph.input if v.name not in self.constants)
        self.outputs = tuple(v.name for v in proto.graph.output)
        self.opset = opset_of(proto) or 1
        taken = {name for node in self.nodes for name in (*node.input, *node.output)}
        self._names = FreshNames(taken | set(self.constants) | set(self.inputs))

    @property
    def proto(self) -> onnx.ModelProto:
        """The model that the graph was made from (not the rewritten one: that is `to_proto`)."""
        return self._proto

    def uses(self) -> Counter[str]:
        """How often each value is read: by nodes (subgraphs included) and as a graph output."""
        count = Counter(self.outputs)
        for node in self.nodes:
            count.update(_reads(node))
        return count

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each value."""
        return {value: node for node in self.nodes for value in node.output if value}

    def array(self, name: str) -> Array | None:
        """The constant `name`, or None where it is no constant."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def constant(self, array: Array, like: str) -> str:
        """Add a constant; returns its name, made from `like`."""
        name = self.unused(like)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def unused(self, like: str) -> str:
        """A value name that nothing in the graph has, made from `like`; taken from now on."""
        return self._names.like(like, self.constants)

    def rename_uses(self, names: dict[str, str]) -> None:
        """Let every node read `names[value]` instead of `value` (chains are followed); outputs stay."""
        if not names:
            return
        final = {old: _end(old, names) for old in names}
        for node in self.nodes:
            _rename_reads(node, final)

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Drop `nodes`."""
        gone = {id(node) for node in nodes}
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def to_proto(self, *, weights: bool = True) -> onnx.ModelProto:
        """The rewritten model: same inputs, outputs, opsets; only constants in use; no stale value types.

        Args:
            weights: copy the constants whole; without, the large ones come without their data.
        """
        made = onnx.ModelProto(ir_version=max(self._proto.ir_version, 4))
        made.opset_import.extend(self._proto.opset_import)
        made.functions.extend(self._proto.functions)
        made.graph.name = self._proto.graph.name
        made.graph.input.extend(v for v in self._proto.graph.input if v.name in self.inputs)
        made.graph.output.extend(self._proto.graph.output)
        made.graph.node.extend(self.nodes)
        used = self.uses()
        tensors = [tensor for name, tensor in self.constants.items() if used[name]]
        made.graph.initializer.extend(tensors if weights else map(without_data, tensors))
        return made


@dataclass(frozen=True)
class Rewrite:
    """One named pass.

    Attributes:
        name: what it does, in two or three words.
        apply: changes the graph; returns how many nodes it changed or removed.
        leftovers: the nodes that should not be there after `apply` (the postcondition: there are none).
    """

    name: str
    apply: Callable[[Graph], int]
    leftovers: Callable[[Graph], Iterator[onnx.NodeProto]]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, or `default` where it is not set."""
    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def is_op(node: onnx.NodeProto, *ops: str) -> bool:
    """Whether the node is one of the standard ops `ops`."""
    return node.domain in ("", "ai.onnx") and node.op_type in ops


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _reads(inner)


def _rename_reads(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for index, name in enumerate(node.input):
        if name in names:
            node.input[index] = names[name]
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename_reads(inner, names)


def _end(name: str, names: dict[str, str]) -> str:
    while name in names:
        name = names[name]
    return name
