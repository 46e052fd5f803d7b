"""Shapes of all values of a model at one input size, by onnx shape inference without the weights.

Where it gets stuck (a Reshape to a computed shape), the arithmetic on shapes is folded and inference starts
again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx
from onnx import TensorProto, helper, shape_inference

from .onnx_file import shape_of
from .shape_arithmetic import fold_shapes

__all__ = ["infer", "skeleton", "static_shapes", "value_types"]

SMALL = 1024
"""Initializers of at most so many elements keep their data: shape inference reads targets of Reshape."""


def skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A small copy in which large initializers are graph inputs of the same type, without data."""
    bare = onnx.ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    graph = proto.graph
    bare.graph.name = graph.name or "graph"
    bare.graph.node.extend(graph.node)
    bare.graph.input.extend(graph.input)
    bare.graph.output.extend(graph.output)
    bare.graph.value_info.extend(graph.value_info)
    bare.graph.sparse_initializer.extend(graph.sparse_initializer)
    listed = {item.name for item in graph.input}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            bare.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def infer(bare: onnx.ModelProto) -> onnx.ModelProto:
    """Shape inference with data propagation: strict where it works, else as far as it gets."""
    try:
        return shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        pass
    try:
        return shape_inference.infer_shapes(bare, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return bare


def _fix_inputs(bare: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Give the inputs their shapes; returns what that makes of the names of dynamic dimensions."""
    bound: dict[str, int] = {}
    for item in bare.graph.input:
        if item.name in shapes:
            dims = shape_of(item.type.tensor_type) or ()
            bound.update(
                (dim, size) for dim, size in zip(dims, shapes[item.name], strict=False) if isinstance(dim, str)
            )
            elem_type = item.type.tensor_type.elem_type
            item.CopyFrom(helper.make_tensor_value_info(item.name, elem_type, shapes[item.name]))
    return bound


def _bind(item: onnx.ValueInfoProto, bound: Mapping[str, int]) -> onnx.ValueInfoProto:
    """A copy of a value's description in which named dimensions have their numbers."""
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(item)
    if copied.type.WhichOneof("value") == "tensor_type":
        for dim in copied.type.tensor_type.shape.dim:
            if dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]
    return copied


def static_shapes(proto: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the top-level values when the inputs have the given shapes; unknown ones are left out.

    Shapes stored in the file count only where inference leaves a hole, as an exporter may have traced another
    size.
    """
    bare = skeleton(proto)
    stored = proto.graph.value_info
    del bare.graph.value_info[:]
    bound = _fix_inputs(bare, inputs)
    for item in bare.graph.output:
        if item.type.WhichOneof("value") == "tensor_type":
            item.type.tensor_type.ClearField("shape")
    made = {name for node in proto.graph.node for name in node.output if name}
    found = _static(infer(bare))
    while not found.keys() >= made and fold_shapes(bare, found):
        found.update(_static(infer(bare)))
    if not found.keys() >= made and stored:
        bare.graph.value_info.extend(_bind(item, bound) for item in stored if item.name not in found)
        found = {**_static(infer(bare)), **found}
    return found


def _static(inferred: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = inferred.graph
    found: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for item in (*graph.input, *graph.value_info, *graph.output):
        if item.type.WhichOneof("value") == "tensor_type":
            shape = shape_of(item.type.tensor_type)
            if shape is not None and all(isinstance(dim, int) for dim in shape):
                found[item.name] = tuple(dim for dim in shape if isinstance(dim, int))
    return found


def value_types(proto: onnx.ModelProto, values: Iterable[str]) -> dict[str, onnx.TypeProto]:
    """Types of values, with dynamic shapes, as far as shape inference gets.

    Where not even the rank is inferred, it is that which the value has for inputs of an assumed size; where
    that fails too, the type has no shape. An unknown element type is taken for float32.
    """
    wanted = set(values)
    inferred = infer(skeleton(proto)).graph
    types = {item.name: item.type for item in (*inferred.value_info, *inferred.output) if item.name in wanted}
    for name in wanted:
        kind = types.setdefault(name, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        if kind.HasField("tensor_type") and kind.tensor_type.elem_type == TensorProto.UNDEFINED:
            kind.tensor_type.elem_type = TensorProto.FLOAT
    tensors = {name: kind.tensor_type for name, kind in types.items() if kind.HasField("tensor_type")}
    vague = {name: tensor for name, tensor in tensors.items() if not tensor.HasField("shape")}
    shapes = static_shapes(proto, _assumed_inputs(proto)) if vague else {}
    for name in vague.keys() & shapes.keys():
        rank = len(shapes[name])
        types[name] = helper.make_tensor_type_proto(vague[name].elem_type, [None] * rank)
    return types


def _assumed_inputs(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Inputs of batch 1 and, where the graph leaves it open, 64 along each further dimension."""
    assumed = {}
    for item in proto.graph.input:
        shape = shape_of(item.type.tensor_type)
        if shape is not None:
            dims = [dim if isinstance(dim, int) else (64 if index else 1) for index, dim in enumerate(shape)]
            assumed[item.name] = tuple(dims)
    return assumed
