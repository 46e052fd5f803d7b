"""Q and DQ nodes of onnxruntime's own domain as standard ones, and weights of 4 bits as floats.

onnxruntime's quantisers write QuantizeLinear and DequantizeLinear of com.microsoft where the standard ones lack a type
at the file's opset (16 bits below opset 21), or when told to. Weights of 4 bits, in blocks or not, are constants that
neither numpy nor torch can hold as they are; what DequantizeLinear makes of them can be held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import ModelError
from .contributed import DOMAIN
from .opset import opset_of
from .topology import Topology, copied_node

__all__ = ["has_narrow_types", "widen_narrow_types"]

OPS: Final = ("QuantizeLinear", "DequantizeLinear")
FOUR_BITS: Final = frozenset((TensorProto.INT4, TensorProto.UINT4))
EIGHT_BITS: Final = frozenset((TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32))
SIXTEEN_BITS: Final = frozenset((TensorProto.INT16, TensorProto.UINT16))
AXIS_OPSET: Final = 13
"""The first opset whose Q and DQ take a scale per slice of an axis."""
WIDE_OPSET: Final = 21
"""The first one whose Q and DQ take 4 and 16 bits."""
FIRST_OPSET: Final = 10

Tensors = Mapping[str, onnx.TensorProto]


def has_narrow_types(proto: onnx.ModelProto) -> bool:
    """Whether `widen_narrow_types` would change anything."""
    tensors, opset = Topology(proto.graph).tensors, opset_of(proto)
    return any(_folds(node, tensors, opset) or _is_standard(node, tensors, opset) for node in proto.graph.node)


def widen_narrow_types(proto: onnx.ModelProto) -> None:
    """Change the top-level graph in place; values keep their names.

    Raises:
        ModelError: a constant does not fit to its scales, or does not hold what its shape says.
    """
    graph, opset = proto.graph, opset_of(proto)
    tensors = Topology(graph).tensors
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if _folds(node, tensors, opset):
            try:
                graph.initializer.append(numpy_helper.from_array(_dequantised(node, tensors), node.output[0]))
            except (ValueError, TypeError, IndexError) as error:
                reason = " ".join(str(error).split())
                raise ModelError(f"the weights '{node.input[0]}' do not fit to their scales: {reason}") from error
            continue
        copy = copied_node(node)
        if _is_standard(node, tensors, opset):
            copy.domain = ""
            if opset < AXIS_OPSET:
                del copy.attribute[:]
        nodes.append(copy)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.data_type not in FOUR_BITS or tensor.name in read]
    if len(kept) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def _type(node: onnx.NodeProto, tensors: Tensors) -> int:
    """Element type of the integers of a Q or DQ node; 0 where it is not known."""
    for place in (2, 0) if node.op_type == "DequantizeLinear" else (2,):
        if place < len(node.input) and node.input[place] in tensors:
            return tensors[node.input[place]].data_type
    unsigned = node.op_type == "QuantizeLinear" and not any(node.input[2:])
    return int(TensorProto.UINT8) if unsigned else 0


def _folds(node: onnx.NodeProto, tensors: Tensors, opset: int) -> bool:
    """A DQ of constants of 4 bits, or of 16 in onnxruntime's domain where the standard one has none."""
    if node.op_type != "DequantizeLinear" or node.domain not in ("", DOMAIN):
        return False
    if not all(name in tensors for name in node.input if name):
        return False
    kind = tensors[node.input[0]].data_type
    return kind in FOUR_BITS or (kind in SIXTEEN_BITS and node.domain == DOMAIN and opset < WIDE_OPSET)


def _is_standard(node: onnx.NodeProto, tensors: Tensors, opset: int) -> bool:
    """A Q or DQ of onnxruntime's domain that the standard one can say."""
    if node.domain != DOMAIN or node.op_type not in OPS or opset < FIRST_OPSET or len(node.input) < 2:
        return False
    kind = _type(node, tensors)
    if kind not in EIGHT_BITS and not (kind in SIXTEEN_BITS | FOUR_BITS and opset >= WIDE_OPSET):
        return False
    scale = tensors.get(node.input[1])
    return opset >= AXIS_OPSET or (scale is not None and int(np.prod(scale.dims)) == 1)


def _dequantised(node: onnx.NodeProto, tensors: Tensors) -> NDArray[np.float32]:
    """(x - zero) scale, scales of the whole, of slices along an axis, or of blocks of it."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    x, scale = (numpy_helper.to_array(tensors[name]).astype(np.float32) for name in node.input[:2])
    zero = np.zeros_like(scale)
    if len(node.input) > 2 and node.input[2]:
        zero = numpy_helper.to_array(tensors[node.input[2]]).astype(np.float32)
    axis, block = int(given.get("axis", 1)), int(given.get("block_size", 0))

    def along(values: NDArray[np.float32]) -> NDArray[np.float32]:
        if values.size == 1:
            return values.reshape(())
        if block:
            repeated = values.repeat(block, axis=axis)
            return repeated.take(range(x.shape[axis]), axis=axis)
        shape = [1] * x.ndim
        shape[axis] = -1
        return values.reshape(shape)

    made: NDArray[np.float32] = ((x - along(zero)) * along(scale)).astype(np.float32)
    return made
