"""Outputs that nothing can compute: they are left out, and what they are computed from takes their place."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto

from .cut import cut
from .shapes import value_types
from .topology import Topology, node_inputs

__all__ = ["runnable_outputs"]

DOMAINS: Final = frozenset(["ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training", "com.microsoft"])
"""Domains beside the standard one whose operators onnxruntime has, or has some of."""
OLD: Final = frozenset(
    ("ATen", "Affine", "Crop", "DynamicSlice", "GivenTensorFill", "ImageScaler", "ParametricSoftplus", "Scale")
) | {"ScaledTanh"}
"""Experimental operators of the standard domain that onnx dropped and onnxruntime still runs."""


def runnable_outputs(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A model without the outputs that cannot be computed as a tensor of numbers.

    These are outputs that hang on an operator of a foreign domain (TensorRT's plugins, a framework's own), and outputs
    that are sequences, maps, optionals or texts. In their place comes what is computed last before them. Where convs
    stand behind such an operator, they go too, if an output of numbers stays that hangs on convs, not on the operator.

    Args:
        proto: A model in topological order, without local functions; it is not changed.

    Returns:
        The model itself where all outputs can be computed, or where convs would be gone and no prediction stays; else
        a smaller one; and output left out -> why.
    """
    graph = proto.graph
    topology = Topology(graph)
    foreign = {index: _name(node) for index, node in enumerate(topology.nodes) if not _known(node)}
    broken = _spread(topology, foreign)
    lost = {index: reason for index, reason in broken.items() if "Conv" in topology.nodes[index].op_type}
    left: dict[str, str] = {}
    for item in graph.output:
        index = topology.producer.get(item.name)
        if index is None:
            left[item.name] = "is an input or a constant of the graph, not computed from the picture"
        elif index in broken:
            gone = sum(reason == broken[index] for reason in lost.values())
            left[item.name] = f"needs the operator {broken[index]}, which onnxruntime does not have" + (
                f"; {gone} conv layer{'s' * (gone > 1)} behind it cannot be explained" if gone else ""
            )
        elif (kind := _kind(item)) is not None:
            left[item.name] = f"is {kind}, not a tensor of numbers"
    if not left:
        return proto, {}
    kept = [item.name for item in graph.output if item.name not in left]
    if lost and not any("Conv" in topology.nodes[index].op_type for index in topology.ancestors(kept)):
        return proto, {}  # refused by the operator's name: what predicts, and layers, hang on it
    instead = [] if lost else _last_computed(proto, topology, broken, left)
    wanted = list(dict.fromkeys([*kept, *instead]))
    return (cut(proto, wanted), left) if wanted else (proto, {})


def _name(node: onnx.NodeProto) -> str:
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type


def _known(node: onnx.NodeProto) -> bool:
    if node.domain in ("", "ai.onnx"):
        return node.op_type in OLD or onnx.defs.has(node.op_type)
    return node.domain in DOMAINS


def _spread(topology: Topology, foreign: dict[int, str]) -> dict[int, str]:
    """Every node that hangs on a foreign one -> that one's name."""
    broken = dict(foreign)
    for index, node in enumerate(topology.nodes):
        if index not in broken:
            makers = (topology.producer.get(name) for name in node_inputs(node))
            reason = next((broken[maker] for maker in makers if maker in broken), None)
            if reason is not None:
                broken[index] = reason
    return broken


def _kind(item: onnx.ValueInfoProto) -> str | None:
    which = item.type.WhichOneof("value")
    if which in ("sequence_type", "map_type", "optional_type"):
        return f"a {which.removesuffix('_type')}"
    return "text" if item.type.tensor_type.elem_type == TensorProto.STRING else None


def _last_computed(
    proto: onnx.ModelProto, topology: Topology, broken: dict[int, str], left: dict[str, str]
) -> list[str]:
    """Numeric values that nodes make and from which the outputs left out are computed, nearest first."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(left)
    while waiting:
        name = waiting.pop(0)
        index = topology.producer.get(name)
        if name in seen or index is None:
            continue
        seen.add(name)
        if index not in broken and name not in left and _numeric(proto, name):
            found[name] = None
        else:
            waiting.extend(node_inputs(topology.nodes[index]))
    return list(found)


def _numeric(proto: onnx.ModelProto, name: str) -> bool:
    kind = value_types(proto, [name])[name]
    numbers = kind.tensor_type.elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING)
    return kind.WhichOneof("value") == "tensor_type" and numbers
