"""Quantised graphs: what is one, and a float value for every quantised conv that has none.

A QLinearConv makes integers, whose zero is not 0: no feature map. A DequantizeLinear beside it makes one,
with the scale and the zero point that the conv itself states.
"""

from __future__ import annotations

import onnx
from onnx import helper

__all__ = ["QUANTISED_OPS", "add_float_views", "is_quantised", "lacks_float_views", "rounds_by_batch"]

QUANTISED_OPS = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
})  # fmt: skip


def is_quantised(proto: onnx.ModelProto) -> bool:
    """Whether values on the way are rounded to integers (weights stored as integers alone do not count)."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        known = node.op_type == "DequantizeLinear" and all(name in constants for name in node.input if name)
        if node.op_type in QUANTISED_OPS and not known:
            return True
    return False


def rounds_by_batch(proto: onnx.ModelProto) -> bool:
    """Whether an image's numbers hang on the others of its batch: scales are taken from all of them at run time."""
    return any(node.op_type == "DynamicQuantizeLinear" for node in proto.graph.node)


def _views(graph: onnx.GraphProto) -> dict[tuple[str, ...], str]:
    """(quantised value, scale, zero point) -> its float value, where a node makes one."""
    return {tuple(node.input): node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}


def _missing(graph: onnx.GraphProto) -> list[tuple[str, str, str]]:
    views = _views(graph)
    found = []
    for node in graph.node:
        if node.op_type == "QLinearConv" and len(node.input) >= 8 and node.output:
            key = (node.output[0], node.input[6], node.input[7])
            if key not in views:
                found.append(key)
    return found


def lacks_float_views(proto: onnx.ModelProto) -> bool:
    """Whether `add_float_views` would add anything."""
    return bool(_missing(proto.graph))


def add_float_views(proto: onnx.ModelProto) -> None:
    """Add, in place, `<value>.dequantized` for every QLinearConv whose output nothing dequantises."""
    graph = proto.graph
    missing = {key[0]: key for key in _missing(graph)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        for name in node.output:
            if name in missing:
                view = f"{name}.dequantized"
                nodes.append(helper.make_node("DequantizeLinear", list(missing[name]), [view], name=view))
    del graph.node[:]
    graph.node.extend(nodes)
