"""How much a graph computes, counted from the shapes of a run: what no other work on the machine can change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def multiply_adds(path: Path, feeds: Mapping[str, NDArray[Any]]) -> int:
    """Multiplications of all convolutions and matrix products of a float graph in one run.

    Args:
        path: the ONNX file.
        feeds: its inputs; shapes with several images count all of them.
    """
    proto = onnx.load(path)
    counted = [node for node in proto.graph.node if node.op_type in COUNTED]
    shapes = {item.name: tuple(item.dims) for item in proto.graph.initializer} | {
        name: value.shape for name, value in feeds.items()
    }
    wanted = {name for node in counted for name in (*node.input[:2], node.output[0])} - set(shapes)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(wanted - known))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = sorted(wanted)
    shapes |= {name: value.shape for name, value in zip(names, session.run(names, dict(feeds)), strict=True)}
    return sum(_of(node, shapes) for node in counted)


def _of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Conv: a product per output value, input channel of its group and kernel cell; a transposed one likewise per
    input value; matrices: per output value and inner place."""
    first, second, made = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return int(np.prod(made) * np.prod(second[1:]))
    if node.op_type == "ConvTranspose":
        return int(np.prod(first) * np.prod(second[1:]))
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    inner = first[0] if turned else first[-1]
    return int(np.prod(made) * inner)
