"""The version of the standard operators that a graph uses."""

from __future__ import annotations

import onnx


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of the standard operator set; 0 where the graph names none."""
    return next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
