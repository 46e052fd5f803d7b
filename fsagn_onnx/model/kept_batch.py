"""A Squeeze of all axes takes the batch away when there is one image only: it gets the axes that it takes of two."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .batch import fixed_batch
from .input_spec import InputSpec
from .opset import opset_of
from .shapes import static_shapes, value_types
from .topology import Topology

__all__ = ["with_kept_batch"]

AXES_INPUT = 13
"""The first opset in which Squeeze takes its axes as an input."""


def with_kept_batch(proto: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """A model whose outputs have the axis of their images for one image, too.

    Args:
        proto: a model; it is not changed.
        spec: its image input.

    Returns:
        The model itself where its batch is declared, or nothing is squeezed.
    """
    numbers = [number for number, node in enumerate(proto.graph.node) if _takes_all(node)]
    if not numbers or fixed_batch(proto, spec.name):
        return proto
    shapes = static_shapes(proto, {spec.name: (2, *spec.sample_shape)})
    chosen = {number: shapes.get(proto.graph.node[number].input[0], ()) for number in numbers}
    chosen = {number: shape for number, shape in chosen.items() if shape[:1] == (2,)}
    if not chosen:
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    for number, shape in chosen.items():
        node, axes = graph.node[number], [axis for axis, size in enumerate(shape) if size == 1]
        if not axes:
            node.op_type = "Identity"
        elif opset_of(made) < AXES_INPUT:
            node.attribute.append(helper.make_attribute("axes", axes))
        else:
            name = f"{node.output[0]}/axes"
            del node.input[1:]
            node.input.append(name)
            graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
    changed = Topology(graph).descendants([graph.node[number].output[0] for number in chosen])
    outputs = [item for item in graph.output if item.name in changed and item.type.HasField("tensor_type")]
    for item in outputs:
        item.type.tensor_type.ClearField("shape")
    for name, kind in value_types(made, [item.name for item in outputs]).items():
        next(item for item in outputs if item.name == name).type.CopyFrom(kind)
    return made


def _takes_all(node: onnx.NodeProto) -> bool:
    axes = any(item.name == "axes" for item in node.attribute) or (len(node.input) > 1 and bool(node.input[1]))
    return node.op_type == "Squeeze" and not node.domain and not axes
