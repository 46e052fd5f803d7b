"""Element types and shapes of a graph's values, symbolic sizes included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from ...model.shapes import infer, skeleton

__all__ = ["ValueType", "infer_types"]


@dataclass(frozen=True)
class ValueType:
    """Element type and shape of a value.

    Attributes:
        dtype: `onnx.TensorProto.DataType`.
        dims: one entry per axis: a size, a symbolic name, or None for unknown; None for an unknown rank.
    """

    dtype: int
    dims: tuple[int | str | None, ...] | None

    @property
    def elements(self) -> int | None:
        """How many elements, or None where some size is unknown."""
        if self.dims is None:
            return None
        known = [size for size in self.dims if isinstance(size, int)]
        return math.prod(known) if len(known) == len(self.dims) else None


def infer_types(proto: onnx.ModelProto) -> dict[str, ValueType]:
    """Types of all values that onnx's shape inference finds, initializers included; not the stored ones."""
    bare = skeleton(proto)
    del bare.graph.value_info[:]
    graph = infer(bare).graph
    found = {tensor.name: ValueType(tensor.data_type, tuple(tensor.dims)) for tensor in proto.graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            found[value.name] = _value_type(value.type.tensor_type)
    return found


def _value_type(tensor: onnx.TypeProto.Tensor) -> ValueType:
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    dims = tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param if d.HasField("dim_param") else None
        for d in tensor.shape.dim
    )
    return ValueType(tensor.elem_type, dims)
