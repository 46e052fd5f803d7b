"""A normalisation of pixels at the beginning of a graph, by which the range of its input is known."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from .content_hash import array_of
from .topology import Topology

__all__ = ["own_range"]

SCANNED: Final = 24
"""Nodes behind the image that are looked at."""
MOVING: Final = frozenset({
    "Cast", "Clip", "Concat", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze", "Upsample",
})  # fmt: skip
"""Ops that leave the pixels' values in their range: they move, choose, reorder or interpolate them."""
SIZES: Final = frozenset({"Shape", "Size"})
"""Ops that read no pixels."""
STATISTICS: Final = frozenset({"GlobalAveragePool", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceL2"})
"""Ops that sum up the pixels of a picture in a few numbers."""
NORMS: Final = frozenset({"InstanceNormalization", "MeanVarianceNormalization"})
"""Ops that standardise a picture by its own statistics."""
STEPS: Final = 8
"""Nodes between a statistic and where it is used, at most."""
PIXEL_MEAN: Final = 2.0
PIXEL_DIVISOR: Final = 20.0
"""A mean or a divisor from here on belongs to pixels in 0..255, a smaller one to 0..1."""


def own_range(graph: onnx.GraphProto, image: str) -> int | None:
    """The largest pixel that a graph expects which normalises its input itself.

    Args:
        graph: the graph.
        image: name of its image input.

    Returns:
        255 where the first arithmetic on the pixels has a divisor of 20 or more, a factor of 1/20 or less, or a mean
        of 2 or more (a first batch norm counts by its running mean and deviation), and where each picture is
        standardised by its own statistics, to which the range is all the same; 1 for smaller ones; None where the graph
        begins with something else.
    """
    topology = Topology(graph)
    constants = topology.tensors
    at, centred = image, False
    for _ in range(SCANNED):
        node = _reader(topology, at)
        if node is None:
            return None
        if node.op_type in MOVING:
            at = node.output[0]
            continue
        if node.op_type == "BatchNormalization":
            return _of_batch_norm(node, constants) or (1 if centred else None)
        other = next((name for name in node.input if name != at), "")
        if node.op_type in NORMS or (node.op_type in ("Sub", "Div") and _is_statistic(topology, other, at)):
            return 255
        tensor = constants.get(other)
        if (
            node.op_type not in ("Sub", "Add", "Div", "Mul")
            or tensor is None
            or not 1 <= int(np.prod(tensor.dims)) <= 4
        ):
            return 1 if centred else None
        size = float(np.abs(_numbers(tensor)).max())
        if node.op_type in ("Sub", "Add"):
            if size >= PIXEL_MEAN:
                return 255
            centred = centred or size > 0
        elif (size >= PIXEL_DIVISOR) if node.op_type == "Div" else (0 < size <= 1 / PIXEL_DIVISOR):
            return 255
        else:
            return 1
        at = node.output[0]
    return None


def _reader(topology: Topology, value: str) -> onnx.NodeProto | None:
    """The one node that reads the pixels of a value; branches that meet again, as in a channel flip, count as one."""
    users = [topology.nodes[index] for index in topology.consumers.get(value, ())]
    users = [node for node in users if node.op_type not in SIZES]
    if len(users) > 1:
        users = [node for node in users if node.op_type not in STATISTICS] or users
    if len(users) == 1 or (users and all(node.op_type in ("Slice", "Gather", "Split") for node in users)):
        return users[0]
    return None


def _is_statistic(topology: Topology, value: str, pixels: str) -> bool:
    """Whether a value is made of numbers that sum up the pixels of a whole picture, and of nothing else of them."""
    waiting, whole = [value], False
    for _ in range(STEPS):
        if not waiting:
            break
        index = topology.producer.get(waiting.pop())
        if index is None:
            continue
        node = topology.nodes[index]
        if node.op_type in STATISTICS and node.input[0] == pixels:
            whole = whole or _over_places(topology, node)
        elif pixels in node.input:
            return False
        else:
            waiting += [name for name in node.input if name and name not in topology.constants]
    return whole


def _over_places(topology: Topology, node: onnx.NodeProto) -> bool:
    """Whether a statistic is one over height and width, and not one per place over the channels."""
    if node.op_type == "GlobalAveragePool":
        return True
    axes = next((list(item.ints) for item in node.attribute if item.name == "axes"), None)
    tensor = topology.tensors.get(node.input[1]) if axes is None and len(node.input) > 1 else None
    if tensor is not None:
        axes = [int(axis) for axis in array_of(tensor).ravel()]
    return axes is None or len(axes) > 1


def _of_batch_norm(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> int | None:
    """A first batch norm whose statistics are those of pixels."""
    mean, variance = (constants.get(name) for name in node.input[3:5])
    if mean is None or variance is None or not 1 <= int(np.prod(mean.dims)) <= 4:
        return None
    largest, deviation = float(np.abs(_numbers(mean)).max()), float(np.sqrt(_numbers(variance).max()))
    if largest >= PIXEL_MEAN or deviation >= PIXEL_DIVISOR:
        return 255
    return 1 if largest > 0 else None


def _numbers(tensor: TensorProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(array_of(tensor), dtype=np.float64)
