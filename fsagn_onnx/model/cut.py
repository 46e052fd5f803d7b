"""Cutting a graph down to what some of its values need."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
from onnx import TensorProto

from ..errors import LayerError
from .shapes import SMALL, value_types
from .topology import Topology, node_inputs

__all__ = ["cut", "without_data"]


def cut(
    proto: onnx.ModelProto, values: Iterable[str], *, keep_outputs: bool = False, weights: bool = True
) -> onnx.ModelProto:
    """Keep only the nodes, initializers and inputs that the values need.

    Args:
        proto: A model in topological order; it is not changed.
        values: Names of values that nodes of the top-level graph make; duplicates count once.
        keep_outputs: Keep the model's own outputs (after the values) and what they need.
        weights: Copy the initializers whole. Without, those of more than `SMALL` elements keep name, type and shape,
            marked as external data: a copy of the weights costs as much memory as the file.

    Returns:
        A new model whose outputs are the values (and the model's own).

    Raises:
        LayerError: a value is not made by any node of the graph.
    """
    topology = Topology(proto.graph)
    wanted = list(dict.fromkeys(values))
    for name in wanted:
        if name not in topology.producer:
            raise LayerError(f"cannot cut the graph at '{name}': no node of '{proto.graph.name}' makes it")
    own = {item.name: item for item in proto.graph.output}
    if keep_outputs:
        wanted = list(dict.fromkeys([*wanted, *own]))
    kept = topology.ancestors(wanted)
    used = set(wanted)
    for index in kept:
        used.update(node_inputs(topology.nodes[index]))

    piece = onnx.ModelProto()
    for field, content in proto.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(piece, field.name).extend(content)
        else:
            setattr(piece, field.name, content)
    _fill(piece.graph, proto.graph, [topology.nodes[index] for index in sorted(kept)], used)
    tensors = [item for item in proto.graph.initializer if item.name in used]
    piece.graph.initializer.extend(tensors if weights else map(without_data, tensors))
    unknown = [name for name in wanted if name not in own]
    types = value_types(proto, unknown) if unknown else {}
    for name in wanted:
        output = piece.graph.output.add()
        if name in own:
            output.CopyFrom(own[name])
        else:
            output.name = name
            output.type.CopyFrom(types[name])
    return piece


def without_data(tensor: TensorProto) -> TensorProto:
    """A tensor's name, type and shape, its data marked as external; the tensor itself if it has few elements."""
    if math.prod(tensor.dims) <= SMALL:
        return tensor
    bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    bare.data_location = TensorProto.EXTERNAL
    return bare


def _fill(target: onnx.GraphProto, source: onnx.GraphProto, nodes: list[onnx.NodeProto], used: set[str]) -> None:
    """Copy the nodes, and of everything else but the initializers what they use."""
    made = {name for node in nodes for name in node.output}
    target.name = source.name
    target.doc_string = source.doc_string
    target.node.extend(nodes)
    target.input.extend(item for item in source.input if item.name in used)
    target.sparse_initializer.extend(item for item in source.sparse_initializer if item.values.name in used)
    target.value_info.extend(item for item in source.value_info if item.name in made)
    target.quantization_annotation.extend(
        item for item in source.quantization_annotation if item.tensor_name in made | used
    )
