"""Constants of one image, given by --feed, that a graph joins to features of many: repeated for each image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .onnx_file import shape_of
from .shapes import static_shapes
from .topology import Topology, copied_node

__all__ = ["with_joined_feeds"]

JOINING = {"Concat": None, "GridSample": 1}
"""Ops whose inputs must have the same batch -> the number of the input that may be a constant; None: any."""
ASSUMED = 64
"""Edge of an image input that leaves it open, to find the ranks of values."""


def with_joined_feeds(proto: onnx.ModelProto, feeds: Iterable[str]) -> onnx.ModelProto:
    """A model in which a constant of batch 1 that is joined to what comes of the image is as long as the batch.

    Args:
        proto: a model whose further inputs have become constants; it is not changed.
        feeds: their names.

    Returns:
        The model itself where nothing is joined, else a changed copy.
    """
    names = list(feeds)
    graph, topology = proto.graph, Topology(proto.graph)
    inputs = [item for item in graph.input if item.name not in topology.initializers]
    if not names or len(inputs) != 1:
        return proto
    moving, fed = topology.descendants([inputs[0].name]), topology.descendants(names)
    found = [
        (number, place)
        for number, node in enumerate(topology.nodes)
        for place in _places(node)
        if node.input[place] in fed - moving and any(name in moving for name in node.input)
    ]
    if not found:
        return proto
    dims = shape_of(inputs[0].type.tensor_type) or ()
    sides = [dim if isinstance(dim, int) and dim > 0 else (ASSUMED if axis else 1) for axis, dim in enumerate(dims)]
    shapes = static_shapes(proto, {inputs[0].name: tuple(sides)})
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    nodes = [copied_node(node) for node in made.graph.node]
    before: dict[int, list[onnx.NodeProto]] = {}
    for number, place in found:
        node = nodes[number]
        shape = shapes.get(node.input[place], ())
        if len(shape) > 1 and shape[0] == 1:
            other = next(name for name in topology.nodes[number].input if name in moving)
            before.setdefault(number, []).extend(_repeat(made.graph, node, place, other, len(shape)))
    del made.graph.node[:]
    for number, node in enumerate(nodes):
        made.graph.node.extend([*before.get(number, []), node])
    return made if before else proto


def _places(node: onnx.NodeProto) -> Iterable[int]:
    if node.op_type not in JOINING or node.domain:
        return ()
    if node.op_type == "Concat" and any(item.name == "axis" and item.i == 0 for item in node.attribute):
        return ()
    chosen = JOINING[node.op_type]
    return range(len(node.input)) if chosen is None else (chosen,)


def _repeat(graph: onnx.GraphProto, node: onnx.NodeProto, place: int, other: str, rank: int) -> list[onnx.NodeProto]:
    """Nodes that make the input as long as `other` is; the input's name changes in the node."""
    stem = f"{node.output[0]}/fed{place}"
    names = {part: f"{stem}/{part}" for part in ("shape", "batch", "target", "zero", "ones", "repeated")}
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), names["zero"]))
    graph.initializer.append(numpy_helper.from_array(np.ones(rank - 1, np.int64), names["ones"]))
    fed = node.input[place]
    node.input[place] = names["repeated"]
    return [
        helper.make_node("Shape", [other], [names["shape"]]),
        helper.make_node("Gather", [names["shape"], names["zero"]], [names["batch"]], axis=0),
        helper.make_node("Concat", [names["batch"], names["ones"]], [names["target"]], axis=0),
        helper.make_node("Expand", [fed, names["target"]], [names["repeated"]]),
    ]
