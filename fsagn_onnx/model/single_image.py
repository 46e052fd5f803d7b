"""Images without an axis of pictures or of channels: (C, H, W), (N, H, W) and (H, W) become (N, C, H, W)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .guesses import IMAGE_CHANNELS
from .onnx_file import Shape, shape_of
from .topology import rename_values

__all__ = ["with_batch_axis"]

SIDE = 16
"""Smallest height and width of an image that has no axis of channels."""


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
    fit = {item.name: added for item in inputs if (added := _added(shapes[item.name])) is not None}
    if image is not None:
        fit = {name: added for name, added in fit.items() if name == image}
    if len(fit) != 1:
        return proto
    ((name, added),) = fit.items()
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    inner, axes = f"{name}/one", f"{name}/axes"
    rename_values(made.graph, {name: inner})
    opset = next((entry.version for entry in made.opset_import if entry.domain == ""), 0)
    if opset < 13:
        squeeze = helper.make_node("Squeeze", [name], [inner], axes=added)
    else:
        made.graph.initializer.append(numpy_helper.from_array(np.array(added, dtype=np.int64), axes))
        squeeze = helper.make_node("Squeeze", [name, axes], [inner])
    nodes = [squeeze, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in made.graph.node)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    for item in made.graph.input:
        if item.name == name:
            kind = item.type.tensor_type.elem_type
            dims = list(shapes[name])
            for axis in added:
                dims.insert(axis, 1)
            item.CopyFrom(helper.make_tensor_value_info(name, kind, dims))
    return made


def _added(shape: Shape) -> list[int] | None:
    """The axes of 1 that an image input lacks; None where it is no image.

    (C, H, W) or (H, W, C) lack that of the pictures, (N, H, W) that of the channel, (H, W) both. Sides are at least
    `SIDE` then, so that rows of numbers are not taken for images.
    """
    if len(shape) == 3 and {shape[0], shape[2]} & {*IMAGE_CHANNELS}:
        return [0]
    sides = [side for side in shape[-2:] if isinstance(side, int)]
    large = len(sides) == 2 and min(sides) >= SIDE
    if len(shape) == 3 and large and not isinstance(shape[0], int):
        return [1]
    return [0, 1] if len(shape) == 2 and large else None
