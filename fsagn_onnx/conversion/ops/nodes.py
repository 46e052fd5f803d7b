"""What converters read off a node."""

from __future__ import annotations

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor, nn

__all__ = ["constant", "converted", "dims_of", "given", "integers", "known_constant"]


def converted(module: nn.Module, node: OnnxNode, inputs: int | None = None) -> OperationConverterResult:
    """The result of a converter: `module` reads the node's first `inputs` inputs (all where None)."""
    return OperationConverterResult(module, OnnxMapping(node.input_values[:inputs], node.output_values))


def given(node: OnnxNode, index: int) -> bool:
    """Whether the optional input number `index` is there."""
    return index < len(node.input_values) and bool(node.input_values[index])


def known_constant(node: OnnxNode, graph: OnnxGraph, index: int) -> bool:
    """Whether input number `index` is left out or a constant."""
    return not given(node, index) or node.input_values[index] in graph.initializers


def constant(node: OnnxNode, graph: OnnxGraph, index: int) -> Tensor | None:
    """The constant input number `index`; None where it is left out.

    Raises:
        NotImplementedError: it is computed at run time.
    """
    if not given(node, index):
        return None
    name = node.input_values[index]
    if name not in graph.initializers:
        raise NotImplementedError(f"input {index} ('{name}') must be a constant, but is computed at run time")
    tensor: Tensor = graph.initializers[name].to_torch()
    return tensor


def integers(node: OnnxNode, graph: OnnxGraph, name: str, index: int) -> tuple[int, ...] | None:
    """Integers that older op versions hold in attribute `name` and newer ones in constant input `index`."""
    if name in node.attributes:
        return tuple(node.attributes[name])
    tensor = constant(node, graph, index)
    return None if tensor is None else tuple(int(i) for i in tensor.reshape(-1).tolist())


def dims_of(node: OnnxNode, graph: OnnxGraph, index: int = 0) -> tuple[int | None, ...] | None:
    """Shape of input number `index` at the file's own input size; None for what is not known."""
    name = node.input_values[index]
    if name in graph.initializers:
        return tuple(graph.initializers[name].proto.dims)
    info = graph.value_info.get(name)
    if info is None or not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim)
