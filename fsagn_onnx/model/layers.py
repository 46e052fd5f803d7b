"""The conv layers of a model: which values can be tapped, and which one to explain unless told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from .activations import Tail, Values, follow_tail
from .heads import before_heads, prediction_layers
from .input_spec import InputSpec
from .receptive_field import receptive_fields
from .topology import Topology, node_inputs

__all__ = ["CONV_OPS", "MIN_SPATIAL", "Layer", "find_layers"]

CONV_OPS = frozenset((domain, op) for domain in ("", "ai.onnx") for op in ("Conv", "QLinearConv", "ConvInteger"))
"""(domain, op) of the convolutions that count as layers."""
MIN_SPATIAL = 3
"""Smallest height and width of a feature map that is explained unless the user asks for another."""


@dataclass(frozen=True)
class Layer:
    """A 2-D conv layer.

    Attributes:
        value: Name of the value to tap: the conv's output after the norm and the activation that follow it.
        op: The ops from the conv to the tap, "Conv+BatchNormalization+Relu".
        conv: Name of the conv node's own output.
        channels: Filters C.
        shape: (C, h, w) of the feature map at the model's input size.
        stride: Input pixels per cell, rounded.
        receptive_field: Edge, in input pixels, of what one cell sees along the conv path; None where it is
            the whole input or not known. Gates that pool globally (squeeze-excite) are not counted.
        default: True for the layer that is explained unless told.
        reason: In words, why this is the default, or why it cannot be; empty for the others.
    """

    value: str
    op: str
    conv: str
    channels: int
    shape: tuple[int, int, int]
    stride: int
    receptive_field: int | None
    default: bool = False
    reason: str = ""


def find_layers(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], spec: InputSpec) -> tuple[Layer, ...]:
    """List the conv layers in topological order, the default marked.

    Args:
        graph: The model's graph.
        shapes: Shapes of its values at the input size.
        spec: The image input.

    Returns:
        The 2-D conv layers whose shapes are known and that depend on no input but the image. At most one is
        the default; none if no map is larger than 1x1.
    """
    topology = Topology(graph)
    values = Values(topology, shapes)
    others = [item.name for item in graph.input if item.name not in topology.initializers and item.name != spec.name]
    foreign = topology.descendants(others) if others else set()
    seen = topology.descendants([spec.name])
    fields = receptive_fields(topology, shapes, spec.name, (2, 3) if spec.layout == "NCHW" else (1, 2))
    useful = topology.ancestors(topology.outputs)
    layers: list[Layer] = []
    for index, node in enumerate(topology.nodes):
        if (node.domain, node.op_type) not in CONV_OPS:
            continue
        tail = follow_tail(values, index)
        shape = shapes.get(tail.value) or shapes.get(node.output[0])
        if shape is None or len(shape) != 4 or tail.value in foreign or tail.value not in seen:
            continue
        layers.append(_describe(tail, node.output[0], shape, spec.size, fields.get(tail.value), index in useful))
    return _mark_default(topology, shapes, layers)


def _describe(
    tail: Tail, conv: str, shape: tuple[int, ...], size: tuple[int, int], field: int | None, useful: bool
) -> Layer:
    channels, height, width = shape[1:]
    reason = ""
    if (height, width) == (1, 1):
        reason = "no spatial map (1x1)"
    elif not useful:
        reason = "leads to no output"
    stride = max(1, round(max(size[0] / height, size[1] / width))) if height and width else 1
    return Layer(tail.value, tail.op, conv, channels, (channels, height, width), stride, field, reason=reason)


def _depths(topology: Topology) -> dict[str, int]:
    """Conv output -> how many convs lie on the longest way to it, itself included."""
    depth: dict[str, int] = {}
    for node in topology.nodes:
        below = max((depth.get(name, 0) for name in node_inputs(node)), default=0)
        is_conv = (node.domain, node.op_type) in CONV_OPS
        depth.update((name, below + is_conv) for name in node.output if name)
    return depth


def _mark_default(topology: Topology, shapes: Mapping[str, tuple[int, ...]], layers: list[Layer]) -> tuple[Layer, ...]:
    """Mark the layer to explain unless told: the deepest with a map of 3x3 or more that all predictions are made from.

    Deepest is what has the most convs before it; of two that have as many, what sees more (the receptive field); the
    order of the file says nothing, as exporters write a block's shortcut before or after its main branch.

    Where no layer predicts by itself (a classifier pools its last maps), that is the last conv layer; where all maps
    are smaller, the largest.
    """
    fit = [layer.value for layer in layers if not layer.reason]
    if not fit:
        return tuple(layers)
    predictions = prediction_layers(topology, shapes, {layer.value: layer.op for layer in layers if not layer.reason})
    features = before_heads(topology, predictions, fit) if predictions else frozenset(fit)
    large = {layer.value for layer in layers if layer.value in fit and min(layer.shape[1:]) >= MIN_SPATIAL}
    what = "last conv layer with a spatial map"
    if predictions and features & large:
        count = sum(map(len, predictions))
        what = f"last conv layer that all {count} predicting ones are computed from"
        what = what if count > 1 else "last conv layer before the one that predicts"
        large &= features
    if not large:
        what = "largest spatial map of any conv layer"
        most = max(math.prod(layer.shape[1:]) for layer in layers if layer.value in fit)
        large = {layer.value for layer in layers if layer.value in fit and math.prod(layer.shape[1:]) == most}
    depths = _depths(topology)
    chosen = max(
        (index for index, layer in enumerate(layers) if layer.value in large),
        key=lambda index: (depths[layers[index].conv], layers[index].receptive_field or math.inf, index),
    )
    layer = layers[chosen]
    words = [f"{what} ({layer.shape[1]}x{layer.shape[2]})", f"{layer.channels:,} filters"]
    behind = topology.descendants([layer.value]) - {layer.value}
    later = sum(other.conv in behind for other in layers)
    if later:
        because = "behind it" if predictions else "with a smaller map or no way to an output"
        words.append(f"{later} {'' if predictions else 'later '}conv layer{'s' * (later > 1)} {because}")
    layers[chosen] = replace(layer, default=True, reason="; ".join(words))
    return tuple(layers)
