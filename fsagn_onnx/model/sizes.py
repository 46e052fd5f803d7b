"""Whether what a graph computes fits into memory, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx

from .topology import Topology, node_inputs

__all__ = ["MAX_ELEMENTS", "MAX_GROWTH", "oversized"]

MAX_ELEMENTS = 2**20
MAX_GROWTH = 384
"""A value may have `MAX_ELEMENTS` elements, or `MAX_GROWTH` times as many as the image input: 64 maps of a picture
enlarged four times have 341 times as many as the picture."""
MARGIN = 64
"""A conv may enlarge the sides of its map to twice as many cells and so many: only damaged pads do more."""


def oversized(
    graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], values: Iterable[str], image: str
) -> str | None:
    """The first value that is too large, in words, among those that some values need; None if there is none.

    Args:
        graph: The graph.
        shapes: Shapes of its values for one batch of the file's own size.
        values: Values that nodes of the graph make.
        image: The image input.
    """
    most = max(MAX_ELEMENTS, MAX_GROWTH * math.prod(shapes.get(image, ())))
    weights = max((math.prod(tensor.dims) for tensor in graph.initializer), default=0)
    varying = {image}
    topology = Topology(graph)
    for index in sorted(topology.ancestors(values)):
        node = topology.nodes[index]
        constant = varying.isdisjoint(node_inputs(node))
        varying.update(() if constant else node.output)
        allowed = max(most, weights) if constant else most  # weights that are dequantised are as many as before
        for name in node.output:
            shape = shapes.get(name, ())
            if math.prod(shape) > allowed or min(shape, default=0) < 0:
                return f"the value '{name}' has the shape {shape} for one input, expected at most {allowed} elements"
            before = shapes.get(node.input[0], ()) if node.input else ()
            windowed = "Conv" in node.op_type and node.op_type != "ConvTranspose" and len(before) == len(shape)
            sides = zip(before[2:], shape[2:], strict=True) if windowed else ()
            if any(after > 2 * side + MARGIN for side, after in sides):
                return f"the conv '{node.name or name}' pads its map from {before[2:]} to {shape[2:]}"
    return None
