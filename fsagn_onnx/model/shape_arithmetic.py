"""Folding the integer arithmetic that exporters leave around Reshape, so that shape inference gets through.

Only a graph without its weights is folded (see `shapes.skeleton`), only for its shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .content_hash import array_of

__all__ = ["fold_shapes"]

MAX_ELEMENTS = 1024
"""No larger tensor is folded."""
FOLDED_OPS = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Floor", "Gather",
    "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal",
    "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Sign", "Slice", "Split", "Sqrt",
    "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Ops that are evaluated when all their inputs are known and small. None of them can make a large tensor out
of small ones, except ConstantOfShape, which is checked."""

Tensors = dict[str, NDArray[Any]]


def fold_shapes(bare: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Replace, in place, what can be computed from known shapes alone by initializers.

    Args:
        bare: A skeleton; changed.
        shapes: The static shapes known of its values.

    Returns:
        How many nodes were replaced; 0 when nothing more can be folded.
    """
    known = {item.name: array_of(item) for item in bare.graph.initializer}
    kept: list[onnx.NodeProto] = []
    folded: Tensors = {}
    count = 0
    for node in bare.graph.node:
        found = _fold(node, known, shapes, bare.opset_import)
        if found is None:
            kept.append(node)
            continue
        count += 1
        known.update(found)
        folded.update(found)
    if count:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del bare.graph.node[:]
        bare.graph.node.extend(nodes)
        bare.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in folded.items())
    return count


def _fold(node: onnx.NodeProto, known: Tensors, shapes: Mapping[str, tuple[int, ...]], opsets: Any) -> Tensors | None:
    """The outputs of a node as tensors, None if they cannot be known."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Shape" and node.input[0] in shapes:
        ends = {item.name: item.i for item in node.attribute}
        return {node.output[0]: np.array(shapes[node.input[0]][ends.get("start", 0) : ends.get("end")], dtype=np.int64)}
    if node.op_type == "Constant":
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
        if tensor is None or math.prod(tensor.dims) > MAX_ELEMENTS:
            return None
        return {node.output[0]: array_of(tensor)}
    if node.op_type not in FOLDED_OPS or not all(name in known for name in node.input if name):
        return None
    inputs = {name: known[name] for name in node.input if name}
    if sum(value.size for value in inputs.values()) > MAX_ELEMENTS:
        return None
    if node.op_type == "ConstantOfShape" and not 0 <= math.prod(map(int, inputs[node.input[0]])) <= MAX_ELEMENTS:
        return None
    return _evaluate(node, inputs, opsets)


def _evaluate(node: onnx.NodeProto, inputs: Tensors, opsets: Any) -> Tensors | None:
    from onnx.reference import ReferenceEvaluator  # 30 ms that few models need

    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "folded",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    try:
        values = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ZeroDivisionError):
        return None
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}
