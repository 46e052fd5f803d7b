"""What onnxruntime runs although onnx's checker refuses it, written as the checker wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .topology import subgraphs

__all__ = ["respell"]

_WITHOUT_WEIGHT_INPUTS: Final = 4
"""The first IR version in which weights need not be listed as inputs."""

_NORM_AXES: Final = (0, 2, 3)
"""Of MeanVarianceNormalization, the batch's among them."""
SLICE_INPUTS: Final = 10
"""The first opset in which Slice takes its bounds as inputs."""

Made = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def respell(proto: onnx.ModelProto) -> None:
    """Change a graph that was just read, so that it computes the same and onnx's checker takes it.

    - The standard domain written out, ``ai.onnx``, becomes the empty one.
    - IR 3 without its weights among the inputs becomes IR 4.
    - The experimental operators Affine, Crop and ImageScaler, which onnx dropped and converters of CoreML and WinML
      wrote, become standard ones; so does Scaler of ai.onnx.ml, with which they normalise pixels, too.
    - The default axes of MeanVarianceNormalization are written out: without them onnx's shape inference stops there.

    Args:
        proto: the model; changed.
    """
    for entry in proto.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    for graph in _graphs(proto.graph):
        for node in graph.node:
            if node.domain == "ai.onnx":
                node.domain = ""
            if node.op_type == "MeanVarianceNormalization" and not node.domain and not node.attribute:
                node.attribute.append(helper.make_attribute("axes", _NORM_AXES))
    listed = {item.name for item in proto.graph.input}
    if proto.ir_version < _WITHOUT_WEIGHT_INPUTS and any(t.name not in listed for t in proto.graph.initializer):
        proto.ir_version = _WITHOUT_WEIGHT_INPUTS
    if any((node.domain, node.op_type) in _STANDARD for node in proto.graph.node):
        opset = next((entry.version for entry in proto.opset_import if not entry.domain), 1)
        _standardise(proto.graph, opset)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)


def _standardise(graph: onnx.GraphProto, opset: int) -> None:
    nodes: list[onnx.NodeProto] = []
    floats = {item.name for item in graph.input if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    for number, node in enumerate(graph.node):
        write = _STANDARD.get((node.domain, node.op_type))
        name = f"{node.output[0]}/standard{number}"
        made, constants = write(node, name, opset) if write else ([], [])
        if made and node.op_type == "Scaler" and node.input[0] not in floats:  # it takes whole numbers, too
            nodes.append(helper.make_node("Cast", [node.input[0]], [f"{name}/float"], to=onnx.TensorProto.FLOAT))
            made[0].input[0] = f"{name}/float"
        nodes.extend(made or [node])
        graph.initializer.extend(constants)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _affine(node: onnx.NodeProto, name: str, opset: int) -> Made:
    """Y = alpha x + beta."""
    given = _attributes(node)
    alpha = np.float32(given.get("alpha", 1.0))  # type: ignore[arg-type]
    beta = np.float32(given.get("beta", 0.0))  # type: ignore[arg-type]
    return _scaled(node, name, np.asarray(alpha), np.asarray(beta))


def _image_scaler(node: onnx.NodeProto, name: str, opset: int) -> Made:
    """y[:, c] = scale x[:, c] + bias[c]."""
    given = _attributes(node)
    scale = np.float32(given.get("scale", 1.0))  # type: ignore[arg-type]
    bias = np.asarray(given.get("bias", [0.0]), dtype=np.float32).reshape(1, -1, 1, 1)
    return _scaled(node, name, np.asarray(scale), bias)


def _scaled(node: onnx.NodeProto, name: str, scale: np.ndarray, bias: np.ndarray) -> Made:
    constants = [numpy_helper.from_array(scale, f"{name}/scale"), numpy_helper.from_array(bias, f"{name}/bias")]
    return [
        helper.make_node("Mul", [node.input[0], f"{name}/scale"], [f"{name}/scaled"], name=node.name),
        helper.make_node("Add", [f"{name}/scaled", f"{name}/bias"], list(node.output)),
    ], constants


def _crop(node: onnx.NodeProto, name: str, opset: int) -> Made:
    """x[:, :, top:-bottom, left:-right], or `scale` (rows, columns) from (top, left)."""
    given = _attributes(node)
    left, top, right, bottom = (int(edge) for edge in given.get("border", (0, 0, 0, 0)))  # type: ignore[attr-defined]
    size = [int(edge) for edge in given.get("scale", ())]  # type: ignore[attr-defined]
    ends = [top + size[0], left + size[1]] if size else [-bottom or 2**31 - 1, -right or 2**31 - 1]
    kept = {"starts": [top, left], "ends": ends, "axes": [2, 3]}
    if opset < SLICE_INPUTS:
        cut = helper.make_node("Slice", [node.input[0]], list(node.output), starts=[top, left], ends=ends, axes=[2, 3])
        return [cut], []
    names = [f"{name}/{key}" for key in kept]
    constants = [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in zip(names, kept.values(), strict=True)]
    return [helper.make_node("Slice", [node.input[0], *names], list(node.output), name=node.name)], constants


def _scaler(node: onnx.NodeProto, name: str, opset: int) -> Made:
    """(x - offset) scale; of F numbers, onnxruntime takes one after the other along the memory, whatever the axes."""
    offset, scale = (np.asarray(_attributes(node).get(key, ()), dtype=np.float32) for key in ("offset", "scale"))
    if offset.size != scale.size or not offset.size:
        return [], []  # onnxruntime refuses it, in words of its own
    if (offset == offset[0]).all() and (scale == scale[0]).all():
        offset, scale = offset[:1], scale[:1]
    constants = [numpy_helper.from_array(offset, f"{name}/offset"), numpy_helper.from_array(scale, f"{name}/scale")]
    x, y, rows = node.input[0], node.output[0], offset.size > 1
    first, last = (f"{name}/rows", f"{name}/scaled") if rows else (x, y)
    nodes = [
        helper.make_node("Sub", [first, f"{name}/offset"], [f"{name}/centred"], name=node.name),
        helper.make_node("Mul", [f"{name}/centred", f"{name}/scale"], [last]),
    ]
    if rows:
        constants.append(numpy_helper.from_array(np.array([-1, offset.size], np.int64), f"{name}/row"))
        nodes.insert(0, helper.make_node("Reshape", [x, f"{name}/row"], [first]))
        nodes += [
            helper.make_node("Shape", [x], [f"{name}/shape"]),
            helper.make_node("Reshape", [last, f"{name}/shape"], [y]),
        ]
    return nodes, constants


_STANDARD: Final[dict[tuple[str, str], Callable[[onnx.NodeProto, str, int], Made]]] = {
    ("", "Affine"): _affine,
    ("", "Crop"): _crop,
    ("", "ImageScaler"): _image_scaler,
    ("ai.onnx.ml", "Scaler"): _scaler,
}
"""(domain, op) -> what writes it in standard operators; it returns no nodes where it cannot."""
