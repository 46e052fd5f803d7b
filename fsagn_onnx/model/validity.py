"""What onnx's checker says of a model."""

from __future__ import annotations

import onnx

from ..errors import ModelError
from .shapes import skeleton

__all__ = ["check_nodes", "strict_refusal"]


def check_nodes(proto: onnx.ModelProto) -> None:
    """Run the checker of onnx without the large weights (hashing checks their sizes).

    Shape inference is not part of it, nor are the types of the graph's outputs: onnxruntime takes models that
    onnx's strict inference refuses, and infers the outputs itself.

    Raises:
        ModelError: the checker refuses the model; the message says why.
    """
    bare = skeleton(proto)
    for item in bare.graph.output:
        if not item.HasField("type"):
            item.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        if item.type.HasField("tensor_type"):
            item.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(bare)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"not a valid ONNX model: {_one_line(error)}") from error


def strict_refusal(proto: onnx.ModelProto) -> str | None:
    """Why onnx's strict shape inference refuses a model, in one line; None if it does not."""
    try:
        onnx.checker.check_model(skeleton(proto), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        return _one_line(error)
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
