"""float16 and bfloat16 graphs computed in float32.

Every tensor, attribute and cast of a half type becomes float32. Inputs and outputs keep float16, with a Cast at
the border; bfloat16 ones become float32, as onnxruntime takes no bfloat16 arrays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import ModelError
from .content_hash import array_of
from .topology import copied_node

__all__ = ["is_half", "widen"]

HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "stash_type"})
"""Attributes that hold an element type."""


def is_half(proto: onnx.ModelProto) -> bool:
    """Whether any weight, constant, cast, input or output has a half type."""
    graph = proto.graph
    return (
        any(tensor.data_type in HALF for tensor in graph.initializer)
        or any(value.type.tensor_type.elem_type in HALF for value in (*graph.input, *graph.output))
        or any(_half_attribute(item) for node in graph.node for item in node.attribute)
    )


def _half_attribute(item: onnx.AttributeProto) -> bool:
    if item.type == onnx.AttributeProto.TENSOR:
        return item.t.data_type in HALF
    return item.type == onnx.AttributeProto.INT and item.name in _TYPE_ATTRIBUTES and item.i in HALF


def _widened(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in HALF:
        try:
            array = array_of(tensor).astype(np.float32)
        except (ValueError, TypeError) as error:
            raise ModelError(f"the tensor '{tensor.name}' does not hold what its shape says: {error}") from error
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and its subgraphs."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(item.g)
            for inner in item.graphs:
                yield from _graphs(inner)


def widen(proto: onnx.ModelProto) -> None:
    """Make a graph float32 inside, in place.

    Raises:
        ModelError: a tensor is shorter or longer than its shape.
    """
    top = proto.graph
    initializers = {tensor.name for tensor in top.initializer}
    inputs = [v for v in top.input if v.name not in initializers and _elem(v) == TensorProto.FLOAT16]
    outputs = [value for value in top.output if _elem(value) == TensorProto.FLOAT16]
    borders = ({value.name for value in inputs}, {value.name for value in outputs})
    for graph in _graphs(top):
        for tensor in graph.initializer:
            _widened(tensor)
        for node in graph.node:
            _widen_attributes(node)
        for value in (*graph.input, *graph.output, *graph.value_info):
            border = graph is top and (value in inputs or value in outputs)
            if _elem(value) in HALF and not border:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    if any(borders):
        _cast_borders(top, *borders)


def _elem(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _widen_attributes(node: onnx.NodeProto) -> None:
    for item in node.attribute:
        if item.type == onnx.AttributeProto.TENSOR:
            _widened(item.t)
        elif _half_attribute(item):
            item.i = TensorProto.FLOAT


def _cast_borders(graph: onnx.GraphProto, inputs: set[str], outputs: set[str]) -> None:
    """Widen: x (float16) -> Cast -> x.float32 -> ... -> y.float32 -> Cast -> y (float16)."""
    names = {name: f"{name}.float32" for name in inputs | outputs}
    for inner in _graphs(graph):
        for node in inner.node:
            for values in (node.input, node.output):
                for index, name in enumerate(values):
                    if name in names:
                        values[index] = names[name]
    before = [helper.make_node("Cast", [n], [names[n]], name=f"{n}.widened", to=TensorProto.FLOAT) for n in inputs]
    after = [helper.make_node("Cast", [names[n]], [n], name=f"{n}.narrowed", to=TensorProto.FLOAT16) for n in outputs]
    nodes = [*sorted(before, key=lambda n: n.name), *map(copied_node, graph.node), *sorted(after, key=lambda n: n.name)]
    del graph.node[:]
    graph.node.extend(nodes)
