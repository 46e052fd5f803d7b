"""Freeing the batch of a graph that was exported for a fixed one.

What is changed: the declared shapes, constant targets of Reshape that repeat the batch, and constant sizes of Resize.
Whether the graph then really takes any batch has to be tried: other ops may hold the number too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from .content_hash import array_of
from .shapes import static_shapes
from .topology import Topology

__all__ = ["fixed_batch", "free_batch", "pin_batch"]

Shapes = Mapping[str, tuple[int, ...]]


def fixed_batch(proto: onnx.ModelProto, image: str) -> int | None:
    """The batch size that the graph declares for its image input, None if any will do."""
    for item in proto.graph.input:
        dims = item.type.tensor_type.shape.dim
        if item.name == image and dims and dims[0].dim_value > 0:
            return int(dims[0].dim_value)
    return None


def free_batch(proto: onnx.ModelProto, image: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A copy of a graph that should take any batch.

    Args:
        proto: A graph whose image input has a fixed batch; not changed.
        image: Name of the image input.
        shape: Its shape, batch included.
    """
    batch = shape[0]
    shapes = static_shapes(proto, {image: shape})
    freed = onnx.ModelProto()
    freed.CopyFrom(proto)
    graph = freed.graph
    del graph.value_info[:]
    for item in (*graph.input, *graph.output):
        dims = item.type.tensor_type.shape.dim
        if dims and dims[0].dim_value == batch and (item.name == image or item in graph.output):
            dims[0].dim_param = "N"
    constants = Topology(graph).tensors
    for index, node in enumerate(graph.node):
        if node.op_type == "Reshape":
            _free_reshape(graph, node, index, constants, shapes, batch)
        elif node.op_type == "Resize":
            _free_resize(graph, node, index, constants, shapes)
    return freed


def pin_batch(proto: onnx.ModelProto, image: str, batch: int) -> onnx.ModelProto:
    """A copy of a graph that declares a fixed batch for its image input, and for the outputs that follow it."""
    pinned = onnx.ModelProto()
    pinned.CopyFrom(proto)
    graph = pinned.graph
    del graph.value_info[:]
    names = {
        item.type.tensor_type.shape.dim[0].dim_param
        for item in graph.input
        if item.name == image and item.type.tensor_type.shape.dim
    }
    for item in (*graph.input, *graph.output):
        dims = item.type.tensor_type.shape.dim
        if dims and (item.name == image or (dims[0].dim_param and dims[0].dim_param in names)):
            dims[0].dim_value = batch
    return pinned


def _free_reshape(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    index: int,
    constants: Mapping[str, onnx.TensorProto],
    shapes: Shapes,
    batch: int,
) -> None:
    """[1, 256] of a value (1, 256, 1, 1) becomes [0, 256]: as many as before."""
    target = constants.get(node.input[1]) if len(node.input) > 1 else None
    before = shapes.get(node.input[0], ())
    allowzero = any(item.name == "allowzero" and item.i for item in node.attribute)
    if target is None or allowzero or before[:1] != (batch,):
        return
    sizes = array_of(target).copy()
    if sizes.ndim != 1 or not sizes.size or sizes[0] != batch:
        return
    sizes[0] = 0
    node.input[1] = _constant(graph, f"{node.input[1]}/free{index}", sizes)


def _free_resize(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    index: int,
    constants: Mapping[str, onnx.TensorProto],
    shapes: Shapes,
) -> None:
    """Sizes that are whole multiples become scales."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    named = any(item.name == "axes" for item in node.attribute)
    if len(node.input) < 4 or node.input[3] not in constants or before is None or after is None or named:
        return
    if (
        len(before) != len(after)
        or 0 in before
        or any(large % small for small, large in zip(before, after, strict=True))
    ):
        return
    scales = np.array([large / small for small, large in zip(before, after, strict=True)], dtype=np.float32)
    node.input[2] = _constant(graph, f"{node.input[3]}/free{index}", scales)
    del node.input[3:]


def _constant(graph: onnx.GraphProto, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    graph.initializer.append(
        helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values)
    )
    return name
