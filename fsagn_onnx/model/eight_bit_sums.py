"""Sums of 8-bit products that are exact on every processor: int8 weights as uint8.

On x86 without 8-bit dot products (AVX2, no VNNI) onnxruntime adds pairs of uint8 x int8 products in 16 bits that
saturate. Of uint8 x uint8 and int8 x int8 it makes exact sums there, too (docs/design/0010-eight-bit-sums.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .contributed import DOMAIN

__all__ = ["with_exact_sums"]

_FACTORS: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, int]]] = {
    ("", "QLinearConv"): ((0, 2), (3, 5)),
    ("", "QLinearMatMul"): ((0, 2), (3, 5)),
    ("", "MatMulInteger"): ((0, 2), (1, 3)),
    ("", "ConvInteger"): ((0, 2), (1, 3)),
    (DOMAIN, "QGemm"): ((0, 2), (3, 5)),
    (DOMAIN, "MatMulIntegerToFloat"): ((0, 4), (1, 5)),
    (DOMAIN, "DynamicQuantizeMatMul"): ((), (1, 3)),
}
"""{(domain, op): places of (the pixels, their zero point), of (the weights, their zero point)}."""


def with_exact_sums(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that computes the same, int8 weights of uint8 pixels moved up by 128 together with their zero point.

    Nodes in the graph move them, so weights may be inputs, or made on the way. Values keep their names.

    Returns:
        A changed copy; `proto` itself where there is nothing to move.
    """
    types = _types(proto.graph)
    if not any(_saturating(node, types) for node in proto.graph.node):
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    del made.graph.node[:]
    moved: dict[str, str] = {}
    for node in proto.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if _saturating(node, types):
            for place in _FACTORS[_kind(node)][1]:
                copy.input.extend([""] * (place + 1 - len(copy.input)))
                name = copy.input[place]
                if name not in moved:
                    moved[name] = f"{name}.moved_up"
                    made.graph.node.extend(_moving(name, moved[name]))
                copy.input[place] = moved[name]
        made.graph.node.append(copy)
    return made


def _kind(node: onnx.NodeProto) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain), node.op_type


def _types(graph: onnx.GraphProto) -> Mapping[str, int]:
    """{value: element type} as far as the graph states it."""
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                types[node.output[0]] = attribute.t.data_type
    return types


def _saturating(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    """Whether the node multiplies uint8 by int8; a zero point has the type of what it belongs to."""
    pixels, weights = _FACTORS.get(_kind(node), ((), ()))

    def signed(places: tuple[int, ...]) -> bool:
        return any(types.get(node.input[place]) == TensorProto.INT8 for place in places if place < len(node.input))

    return signed(weights) and not signed(pixels)


def _moving(name: str, moved: str) -> list[onnx.NodeProto]:
    """Nodes that make `moved`, uint8, of an int8 value; of 0 where a zero point is left out."""
    if not name:
        return [helper.make_node("Constant", [], [moved], value=numpy_helper.from_array(np.asarray(128, np.uint8)))]
    offset = numpy_helper.from_array(np.asarray(128, np.int32))
    return [
        helper.make_node("Cast", [name], [f"{moved}.wide"], to=TensorProto.INT32),
        helper.make_node("Constant", [], [f"{moved}.offset"], value=offset),
        helper.make_node("Add", [f"{moved}.wide", f"{moved}.offset"], [f"{moved}.sum"]),
        helper.make_node("Cast", [f"{moved}.sum"], [moved], to=TensorProto.UINT8),
    ]
