"""Files that onnxruntime saved after it had optimised them for the processor that it ran on."""

from __future__ import annotations

from collections import Counter
from typing import Final

import onnx

__all__ = ["for_one_processor"]

BLOCKED: Final = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc"})
"""Domains of onnxruntime whose weights and maps lie as one kind of processor reads them fastest."""


def for_one_processor(graph: onnx.GraphProto) -> str:
    """What a graph is that was saved at onnxruntime's level ALL, and what to do; "" where it is none.

    The weights of such convs lie in blocks of 8 or 16 channels; nothing in the file says of how many.
    """
    counts = Counter(f"{node.domain}.{node.op_type}" for node in graph.node if node.domain in BLOCKED)
    convs = {name: count for name, count in counts.items() if "Conv" in name}
    if not convs:
        return ""
    found = ", ".join(f"{count} {name}" for name, count in convs.items())
    return (
        f"it was saved by onnxruntime after optimising it for one kind of processor (found {found}, expected Conv); "
        "use the file that it was made of, or save that again with graph_optimization_level ORT_ENABLE_EXTENDED or less"
    )
