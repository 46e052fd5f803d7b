"""Which classes are asked about, where the caller leaves it open."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from .writer import NodeWriter

__all__ = ["chosen_classes"]


def chosen_classes(write: NodeWriter, scores: str, classes: str, count: int) -> str:
    """-1 becomes the class of the highest score that is not asked for by id; the next -1 that of the next, and so on.

    Args:
        write: appends to the graph.
        scores: name of (N, C).
        classes: name of int64 (N, J).
        count: C.

    Returns:
        Name of int64 (N, J).
    """
    free = write.op("Less", classes, write.constant(0))
    asked = write.op("Max", classes, write.constant(0))
    numbers = write.op("Cast", scores, to=TensorProto.FLOAT)
    key = _struck(write, numbers, asked, free, count)
    if write.opset >= 15:
        columns = write.op("Shape", classes, start=1)
    else:
        columns = write.slice(write.op("Shape", classes), 0, 1, 2)
    most = write.op("Min", columns, write.constant([count]))
    best = write.several("TopK", key, most, outputs=2, axis=1)[1]
    slot = write.op("CumSum", write.op("Cast", free, to=TensorProto.INT64), write.constant(1), exclusive=1)
    slot = write.op("Min", slot, write.op("Sub", most, write.constant([1])))
    return write.op("Where", free, write.op("GatherElements", best, slot, axis=1), classes)


def _struck(write: NodeWriter, numbers: str, asked: str, free: str, count: int) -> str:
    """The numbers (N, C), with those of the classes asked for by id at minus infinity."""
    lowest = write.constant(np.array(-np.inf, np.float32))
    if write.opset >= 16:  # one node instead of a comparison with every class
        strike = write.op("Where", free, write.constant(np.array(0, np.float32)), lowest)
        return write.op("ScatterElements", numbers, asked, strike, axis=1, reduction="add")
    places = write.op("Reshape", write.constant(list(range(count))), write.constant([1, 1, count]))
    same = write.op("Equal", write.unsqueeze(asked, 2), places)  # (N, J, C)
    same = write.op("And", same, write.unsqueeze(write.op("Not", free), 2))
    taken = write.reduce("ReduceMax", write.op("Cast", same, to=TensorProto.FLOAT), [1], keep=False)  # (N, C)
    half = write.constant(np.array(0.5, np.float32))
    return write.op("Where", write.op("Greater", taken, half), lowest, numbers)
