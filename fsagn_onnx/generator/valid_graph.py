"""Whether an explainer's graph is a valid ONNX model."""

from __future__ import annotations

import onnx

from ..errors import ExplainerError

__all__ = ["check_graph"]


def check_graph(proto: onnx.ModelProto, *, full: bool) -> None:
    """Run onnx's check; an output of a rank that hangs on the input (a Squeeze of all axes) may declare none.

    Args:
        proto: an explainer's graph.
        full: with shape inference.

    Raises:
        ExplainerError: the graph is not valid; the message says why.
    """
    bare = proto
    kept = [item for item in proto.graph.output if item.type.tensor_type.HasField("shape")]
    if len(kept) < len(proto.graph.output):
        bare = onnx.ModelProto()
        bare.CopyFrom(proto)
        del bare.graph.output[:]
        bare.graph.output.extend(kept)
    try:
        onnx.checker.check_model(bare, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExplainerError(f"export: the explainer's graph would not be valid: {reason}; no file written") from error
