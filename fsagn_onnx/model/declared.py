"""What a file declares of shapes, made true: onnxruntime infers them itself, all else reads what is declared."""

from __future__ import annotations

import onnx
from onnx import TypeProto, shape_inference

from .shapes import skeleton, value_types

__all__ = ["with_true_shapes"]

REFUSALS = (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError)


def with_true_shapes(proto: onnx.ModelProto) -> None:
    """Correct what a graph declares about the shapes of its values, where that cannot be.

    - A negative dimension, which some converters write for an open one, becomes open; so does one of 0 of an input.
    - Where what is declared inside contradicts what onnx infers, it is forgotten.
    - An output without a shape, or with another rank than inferred, gets the shape inferred, or open dimensions where
      only its rank is known.

    Args:
        proto: the model; only declarations change, not what it computes. Left as it is where onnx's inference refuses
            the graph for other reasons.
    """
    graph = proto.graph
    for item in (*graph.output, *graph.value_info):
        _open(item.type, below=0)
    for item in graph.input:
        _open(item.type, below=1)
    bare = skeleton(proto)
    for item in bare.graph.output:
        if item.type.WhichOneof("value") in (None, "tensor_type"):
            item.type.tensor_type.ClearField("shape")
    if not _taken(bare):
        del bare.graph.value_info[:]
        if not _taken(bare):
            return
        del graph.value_info[:]
    tensors = {item.name: item.type.tensor_type for item in graph.output if item.type.HasField("tensor_type")}
    for name, kind in value_types(bare, tensors).items():
        found, declared = kind.tensor_type, tensors[name]
        if not found.HasField("shape"):
            continue
        if not declared.HasField("shape") or len(declared.shape.dim) != len(found.shape.dim):
            declared.shape.CopyFrom(found.shape)


def _open(kind: TypeProto, *, below: int) -> None:
    for dim in kind.tensor_type.shape.dim if kind.HasField("tensor_type") else ():
        if dim.HasField("dim_value") and dim.dim_value < below:
            dim.ClearField("dim_value")


def _taken(bare: onnx.ModelProto) -> bool:
    """Whether strict inference takes a skeleton."""
    try:
        shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    except REFUSALS:
        return False
    return True
