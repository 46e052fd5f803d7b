"""Inputs of one picture without a batch axis: (C, H, W) becomes (1, C, H, W) of the same name."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .guesses import IMAGE_CHANNELS
from .onnx_file import shape_of
from .topology import rename_values

__all__ = ["with_batch_axis"]


def with_batch_axis(proto: onnx.ModelProto, image: str | None = None) -> onnx.ModelProto:
    """A model whose image input has a batch of one, where it has none in the file.

    Args:
        proto: a model; it is not changed.
        image: name of the image input; None: the only 3-D input with 1, 3 or 4 channels, if no input is 4-D.

    Returns:
        The model itself where its image has a batch axis, else one that takes (1, ...) and computes the same.
    """
    known = {tensor.name for tensor in proto.graph.initializer}
    inputs = [item for item in proto.graph.input if item.name not in known]
    shapes = {item.name: shape_of(item.type.tensor_type) or () for item in inputs}
    if image is None and any(len(shape) == 4 for shape in shapes.values()):
        return proto
    fit = [
        item
        for item in inputs
        if len(shapes[item.name]) == 3
        and (item.name == image or (image is None and {shapes[item.name][0], shapes[item.name][2]} & {*IMAGE_CHANNELS}))
    ]
    if len(fit) != 1:
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    name = fit[0].name
    inner, axes = f"{name}/one", f"{name}/axes"
    rename_values(made.graph, {name: inner})
    opset = next((entry.version for entry in made.opset_import if entry.domain == ""), 0)
    if opset < 13:
        squeeze = helper.make_node("Squeeze", [name], [inner], axes=[0])
    else:
        made.graph.initializer.append(numpy_helper.from_array(np.array([0], dtype=np.int64), axes))
        squeeze = helper.make_node("Squeeze", [name, axes], [inner])
    nodes = [squeeze, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in made.graph.node)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    for item in made.graph.input:
        if item.name == name:
            kind = item.type.tensor_type.elem_type
            item.CopyFrom(helper.make_tensor_value_info(name, kind, [1, *shapes[name]]))
    return made
