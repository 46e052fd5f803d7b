"""Nodes that were exported in training mode: which they are, and a graph that answers a picture the same every time.

A batch norm in training mode measures the batch that it gets, a dropout drops at random. For a picture alone, which is
how files are mostly run, such a norm is an instance norm; without chance a dropout passes everything on. The network
as it was trained is another file, exported in inference mode.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .content_hash import array_of
from .shapes import value_types
from .topology import Topology, copied_node

__all__ = ["has_training_nodes", "leave_training", "training_nodes"]

DRAWN = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
"""Operators that draw numbers."""
MAP_RANK = 3
"""Axes from which a picture has places to measure: (N, C, L)."""


def _switched(node: onnx.NodeProto, values: Mapping[str, onnx.TensorProto]) -> bool:
    if node.domain:
        return False
    if node.op_type == "BatchNormalization":
        return sum(map(bool, node.output)) > 1 or any(a.name == "training_mode" and a.i for a in node.attribute)
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in values:
        return bool(array_of(values[node.input[2]]).any())
    return node.op_type in DRAWN


def training_nodes(graph: onnx.GraphProto) -> list[str]:
    """Nodes in training mode, as "op 'value'": batch norms that measure their batch, dropouts and noise."""
    values = Topology(graph).tensors
    return [f"{node.op_type} '{node.output[0]}'" for node in graph.node if _switched(node, values)]


def has_training_nodes(proto: onnx.ModelProto) -> bool:
    """Whether `leave_training` has anything to do."""
    return bool(training_nodes(proto.graph))


def leave_training(proto: onnx.ModelProto) -> None:
    """Write nodes in training mode, in place, as what they are for one picture, and without chance.

    A batch norm of what has no places, or is of unknown rank, stays.
    """
    graph = proto.graph
    topology = Topology(graph)
    switched = [node.input[0] for node in topology.nodes if node.input and _switched(node, topology.tensors)]
    types = value_types(proto, switched)
    ranks = {name: len(kind.tensor_type.shape.dim) for name, kind in types.items()}
    nodes: list[onnx.NodeProto] = []
    for node in topology.nodes:
        if not _switched(node, topology.tensors):
            nodes.append(copied_node(node))
        elif node.op_type == "Dropout":
            nodes += _passing(node, topology)
        elif node.op_type in DRAWN:
            nodes += _mean(node, types)
        elif ranks.get(node.input[0], 0) >= MAP_RANK:
            nodes += _measuring(node, topology)
        else:
            nodes.append(copied_node(node))
    del graph.node[:]
    graph.node.extend(nodes)


def _read(topology: Topology, names: list[str]) -> bool:
    return any(name in topology.consumers or name in topology.outputs for name in names)


def _passing(node: onnx.NodeProto, topology: Topology) -> list[onnx.NodeProto]:
    if not _read(topology, [name for name in node.output[1:] if name]):
        return [helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)]
    kept = copied_node(node)
    del kept.input[2:]
    return [kept]


def _mean(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> list[onnx.NodeProto]:
    """What noise is on average, in its shape."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    low, high = given.get("low", 0.0), given.get("high", 1.0)
    mean = given.get("mean", 0.0) if "Normal" in node.op_type else (low + high) / 2
    kind = given.get("dtype") or (types[node.input[0]].tensor_type.elem_type if node.input else 0) or TensorProto.FLOAT
    shape = f"{node.output[0]}.shape"
    if node.input:
        sized = helper.make_node("Shape", [node.input[0]], [shape], name=shape)
    else:
        sizes = numpy_helper.from_array(np.array(given["shape"], np.int64))
        sized = helper.make_node("Constant", [], [shape], name=shape, value=sizes)
    value = helper.make_tensor("value", kind, [1], [mean])
    return [sized, helper.make_node("ConstantOfShape", [shape], [node.output[0]], name=node.name, value=value)]


def _measuring(node: onnx.NodeProto, topology: Topology) -> list[onnx.NodeProto]:
    """An instance norm; the statistics, where something reads them, stay with the node itself."""
    epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
    made = helper.make_node(
        "InstanceNormalization", list(node.input[:3]), [node.output[0]], name=node.name, epsilon=epsilon
    )
    if not _read(topology, [name for name in node.output[1:] if name]):
        return [made]
    kept = copied_node(node)
    kept.output[0] = f"{node.output[0]}.of_the_batch"
    return [made, kept]
