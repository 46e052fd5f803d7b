"""The file at another opset."""

from __future__ import annotations

import onnx
from onnx import version_converter

from ..errors import ExplainerError, UsageError
from .meaning import keep_sampling, named, spelled_out
from .opset import opset_of

MIN_OPSET = 18
"""The first opset whose Resize takes axes, so that sizes stay constants whatever the batch."""


def at_opset(proto: onnx.ModelProto, opset: int, source: str) -> onnx.ModelProto:
    """A copy of a graph at an opset; it computes the same.

    onnx's own converter changes what some old nodes mean; see `meaning`.

    Args:
        proto: the graph.
        opset: 18 or later, up to what the installed onnx knows.
        source: what to call the graph in errors.

    Raises:
        UsageError: an opset out of range.
        ExplainerError: onnx cannot convert the graph.
    """
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        raise UsageError(f"opset must be {MIN_OPSET}..{newest} (the newest that this onnx knows), but got {opset}")
    current = opset_of(proto) or opset
    if current == opset:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        return copy
    try:
        made = version_converter.convert_version(named(spelled_out(proto, current, opset)), opset)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExplainerError(
            f"{source} is of opset {current} and cannot be converted to {opset}: {reason}; choose another --opset"
        ) from error
    del made.graph.output[len(proto.graph.output) :]
    keep_sampling(proto, made, current)
    return made
