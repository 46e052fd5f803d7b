"""Which conv layers make predictions, and which layers all predictions are made from.

A detector or a segmentation network ends in convs that write boxes, scores or classes per place; behind a classifier's
last conv come pooling and dense layers. What such a prediction conv looks at is the answer itself, so the layer to
explain lies before: the last one from which every prediction is made. In a feature pyramid, whose top-down path joins
all levels, that is the last layer of the backbone; in a U-Net the last one before the mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from .content_hash import array_of
from .topology import Topology

__all__ = ["before_heads", "prediction_layers"]

Shapes = Mapping[str, tuple[int, ...]]

FEATURES = frozenset({
    "Conv", "FusedConv", "ConvInteger", "QLinearConv", "Gemm", "QGemm", "QLinearMatMul", "GlobalAveragePool",
    "QLinearGlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "AveragePool", "QLinearAveragePool", "ReduceMean",
    "LSTM", "GRU", "RNN", "Relu", "LeakyRelu", "PRelu", "HardSwish", "Gelu", "Elu", "Selu", "Mish",
})  # fmt: skip
"""Ops that take or make feature maps, not predictions (boxes and scores are linear, or go through a sigmoid)."""
BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softplus"})
"""Activations of predictions."""
MEANS = frozenset({"ReduceMean", "GlobalAveragePool", "QLinearGlobalAveragePool"})
"""Ops of which norms are made."""
LINEAR = frozenset({"Conv", "FusedConv", "BatchNormalization", "Mul", "Add", "Sub", "Div"})
"""Last ops of a layer without an activation."""
CHOOSING = frozenset({"NonMaxSuppression", "TopK", "RoiAlign", "MaxRoiPool", "ArgMax", "NonZero", "If", "Loop", "Scan"})
"""Ops that choose among predictions: what comes behind them takes no maps."""
SIZES = frozenset({"Shape", "Size"})
"""Ops that read no values."""
DENSE = 256
"""Elements of a constant from which a product with it is a layer; smaller ones convert boxes or colors."""


def prediction_layers(topology: Topology, shapes: Shapes, values: Mapping[str, str]) -> tuple[frozenset[str], ...]:
    """Those conv layers whose maps reach the model's outputs, or a choice among predictions, as they are.

    Args:
        topology: The graph.
        shapes: Shapes of its values.
        values: Tapped values of the conv layers with a spatial map -> ops of the layer, joined by "+".

    Returns:
        Groups of such layers: those whose maps are added up predict the same thing. Of those that make outputs of the
        same shape only the one of the first output is there, the others are auxiliary.
    """
    reached: dict[str, frozenset[str]] = {}
    for value, op in values.items():
        if op.rpartition("+")[2] in LINEAR | BOUNDED:
            found = _reached(topology, shapes, value)
            if found is not None:
                reached[value] = found
    outputs = [item.name for item in topology.graph.output]
    ends = {value: [name for name in outputs if name in found] for value, found in reached.items()}
    groups: list[frozenset[str]] = []
    for value in reached:
        if any(_auxiliary(shapes, outputs, ends[value], ends[other]) for other in reached):
            continue
        same = [group for group in groups if any(_added(topology, reached[value], reached[o]) for o in group)]
        groups = [group for group in groups if group not in same]
        groups.append(frozenset({value}).union(*same))
    return tuple(groups)


def _reached(topology: Topology, shapes: Shapes, value: str) -> frozenset[str] | None:
    """All values made of a value by reshaping, decoding and upsampling.

    None where something that takes feature maps reads it too, or where it leads to no answer.
    """
    seen, stack, answers = {value}, [value], False
    while stack:
        name = stack.pop()
        answers |= name in topology.outputs
        for index in topology.consumers.get(name, ()):
            node = topology.nodes[index]
            if node.op_type in CHOOSING:
                answers = True
            elif _takes_maps(topology, shapes, node):
                return None
            elif node.op_type not in SIZES:
                stack += [made for made in node.output if made and made not in seen]
                seen.update(node.output)
    return frozenset(seen) if answers else None


def _takes_maps(topology: Topology, shapes: Shapes, node: onnx.NodeProto) -> bool:
    if node.op_type in FEATURES:
        return not (_expectation(topology, node) or _norm(topology, shapes, node))
    return node.op_type == "MatMul" and _dense(topology, shapes, node)


def _expectation(topology: Topology, node: onnx.NodeProto) -> bool:
    """Whether a conv is a fixed sum of bins, the weights 0, 1, 2, ...: how YOLO heads decode their boxes (DFL)."""
    tensor = topology.initializers.get(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
    if tensor is None or len(tensor.dims) != 4 or tensor.dims[0] != 1 or math.prod(tensor.dims[2:]) != 1:
        return False
    bins = array_of(tensor).ravel()
    return len(bins) > 1 and bool((bins == np.arange(len(bins))).all())


def _norm(topology: Topology, shapes: Shapes, node: onnx.NodeProto) -> bool:
    """Whether a mean over the map only goes back into it: an instance norm written in single operators."""
    whole = shapes.get(node.input[0]) if node.op_type in MEANS else None
    stack, joined = list(node.output) if whole else [], False
    seen = set(stack)
    while stack:
        name = stack.pop()
        if name in topology.outputs:
            return False
        for index in topology.consumers.get(name, ()):
            reader = topology.nodes[index]
            if reader.op_type in FEATURES:
                return False
            if shapes.get(reader.output[0]) == whole:
                joined = True
            elif reader.output[0] not in seen:
                seen.add(reader.output[0])
                stack.append(reader.output[0])
    return joined


def _dense(topology: Topology, shapes: Shapes, node: onnx.NodeProto) -> bool:
    for name in node.input:
        if name in topology.constants:
            tensor = topology.initializers.get(name)
            size = shapes.get(name, ()) if tensor is None else tensor.dims
            return math.prod(size) > DENSE or not size
    return False


def _added(topology: Topology, first: frozenset[str], second: frozenset[str]) -> bool:
    """Whether two predictions are added up."""
    for name in first & second:
        node = topology.nodes[topology.producer[name]] if name in topology.producer else None
        if node is not None and node.op_type in ("Add", "Sum"):
            sides = [{item for item in node.input if item in reached} for reached in (first, second)]
            if sides[0] and sides[1] and not sides[0] & sides[1]:
                return True
    return False


def _auxiliary(shapes: Shapes, outputs: Sequence[str], own: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a prediction makes one output, a map, of the same shape as an earlier output that another one makes."""
    if len(own) != 1 or len(other) != 1 or outputs.index(other[0]) >= outputs.index(own[0]):
        return False
    return len(shapes.get(own[0], ())) == 4 and shapes[own[0]] == shapes.get(other[0])


def before_heads(topology: Topology, groups: Sequence[frozenset[str]], values: Sequence[str]) -> frozenset[str]:
    """Those layers, no predictions themselves, that every prediction is computed from.

    Args:
        topology: The graph.
        groups: What `prediction_layers` found; at least one. Of a group, one layer will do.
        values: Tapped values of the conv layers with a spatial map.
    """
    needed = set.intersection(*(topology.ancestors(group) for group in groups))
    predicting = frozenset[str]().union(*groups)
    return frozenset(value for value in values if value not in predicting and topology.producer.get(value) in needed)
