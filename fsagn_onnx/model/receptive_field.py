"""Receptive fields along the graph.

Per axis, with kernel k, dilation d and stride s (Araujo, Norris & Sim, "Computing Receptive Fields of
Convolutional Neural Networks", Distill 2019): field' = field + (k - 1) d jump; jump' = s jump. Branches join
by the maximum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from .topology import Topology

__all__ = ["receptive_fields"]

WINDOWED = frozenset({"Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"})
"""Ops of a window; the shape of its weights, where they have one, is that of the input `WEIGHTS` says."""
WEIGHTS = {"QLinearConv": 3}
POINTWISE = frozenset({
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "DequantizeLinear", "Div",
    "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LRN", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub",
    "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where",
})  # fmt: skip
"""Ops of one place (and possibly of its channels)."""
SAME_PLACES = frozenset({"Concat", "Gather", "Pad", "Slice", "Split"})
"""Ops that choose or join channels; cutting or padding the map shifts it but leaves field and jump."""

Shapes = Mapping[str, tuple[int, ...]]
Pair = tuple[float, float]


@dataclass(frozen=True)
class _Reach:
    """Field and jump in input pixels, and the axes they belong to: each (vertical, horizontal)."""

    field: Pair
    jump: Pair
    axes: tuple[int, int]


def _attribute(node: onnx.NodeProto, name: str) -> object:
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return None


def _pair(node: onnx.NodeProto, name: str) -> tuple[int, int]:
    found = _attribute(node, name)
    return (found[0], found[1]) if isinstance(found, list) and len(found) == 2 else (1, 1)


def _windowed(node: onnx.NodeProto, reach: _Reach, shapes: Shapes) -> _Reach | None:
    kernel = _attribute(node, "kernel_shape")
    if kernel is None and len(node.input) > 1:
        kernel = list(shapes.get(node.input[WEIGHTS.get(node.op_type, 1)], ())[2:])
    if not isinstance(kernel, list) or len(kernel) != 2 or reach.axes != (2, 3):
        return None
    strides, dilations = _pair(node, "strides"), _pair(node, "dilations")
    spread = [(kernel[i] - 1) * dilations[i] * reach.jump[i] for i in (0, 1)]
    field = (reach.field[0] + spread[0], reach.field[1] + spread[1])
    return replace(reach, field=field, jump=(reach.jump[0] * strides[0], reach.jump[1] * strides[1]))


def _transposed(node: onnx.NodeProto, reach: _Reach, shapes: Shapes) -> _Reach | None:
    """A transposed conv: ceil(kernel / stride) neighbouring cells reach a place, and places lie stride times closer."""
    kernel = _attribute(node, "kernel_shape") or list(shapes.get(node.input[1], ())[2:])
    if not isinstance(kernel, list) or len(kernel) != 2 or reach.axes != (2, 3):
        return None
    strides, dilations = _pair(node, "strides"), _pair(node, "dilations")
    cells = [math.ceil(((kernel[i] - 1) * dilations[i] + 1) / strides[i]) for i in (0, 1)]
    field = (reach.field[0] + (cells[0] - 1) * reach.jump[0], reach.field[1] + (cells[1] - 1) * reach.jump[1])
    return replace(reach, field=field, jump=(reach.jump[0] / strides[0], reach.jump[1] / strides[1]))


def _resized(node: onnx.NodeProto, reach: _Reach, shapes: Shapes) -> _Reach | None:
    """Interpolation reads the neighbouring cell too."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if before is None or after is None or len(before) != len(after):
        return None
    ratio = [before[axis] / max(1, after[axis]) for axis in reach.axes]
    field = (reach.field[0] + reach.jump[0], reach.field[1] + reach.jump[1])
    return replace(reach, field=field, jump=(reach.jump[0] * ratio[0], reach.jump[1] * ratio[1]))


def _moved(node: onnx.NodeProto, reach: _Reach, shapes: Shapes) -> _Reach | None:
    """Transpose and Reshape: follow the axes of the places, if they survive."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if before is None or after is None:
        return None
    if node.op_type == "Transpose":
        order = _attribute(node, "perm")
        order = order if isinstance(order, list) else list(range(len(before)))[::-1]
        return replace(reach, axes=(order.index(reach.axes[0]), order.index(reach.axes[1])))
    first, last = reach.axes
    if (first, last) == (len(before) - 2, len(before) - 1) and before[-2:] == after[-2:]:
        return replace(reach, axes=(len(after) - 2, len(after) - 1))
    if last == first + 1 and before[: last + 1] == after[: last + 1]:
        return reach
    return None


def _along_channels(node: onnx.NodeProto, reach: _Reach, shapes: Shapes) -> bool:
    """The op mixes only axes behind those of the places: a norm or a product over the channels of NHWC."""
    rank = len(shapes.get(node.input[0], ()))
    if node.op_type == "MatMul":
        return reach.axes == (rank - 3, rank - 2) and len(shapes.get(node.input[1], ())) == 2
    axis = _attribute(node, "axis")
    if node.op_type in ("LayerNormalization", "Softmax"):
        start = axis if isinstance(axis, int) else -1
        return (start + rank if start < 0 else start) > max(reach.axes)
    axes = _attribute(node, "axes")
    kept = _attribute(node, "keepdims") != 0
    return node.op_type.startswith("Reduce") and isinstance(axes, list) and kept and not {
        item % rank if rank else item for item in axes
    } & set(reach.axes)  # fmt: skip


def _step(node: onnx.NodeProto, reach: _Reach, shapes: Shapes) -> _Reach | None:
    """The reach behind a node; None where the op sees everything or is not followed."""
    if node.op_type in WINDOWED:
        return _windowed(node, reach, shapes)
    if node.op_type == "ConvTranspose":
        return _transposed(node, reach, shapes)
    if node.op_type in ("Resize", "Upsample"):
        return _resized(node, reach, shapes)
    if node.op_type in ("Transpose", "Reshape"):
        return _moved(node, reach, shapes)
    if node.op_type in POINTWISE or node.op_type in SAME_PLACES or _along_channels(node, reach, shapes):
        return reach
    return None


def receptive_fields(topology: Topology, shapes: Shapes, image: str, axes: tuple[int, int]) -> dict[str, int]:
    """Receptive fields of the values, edge in input pixels (the longer one), not clipped to the input's size.

    A value that sees the whole input, or whose op is not followed, is left out; where it meets one that does
    not (the gate of squeeze-excite), the field of the other counts.

    Args:
        topology: The graph.
        shapes: Shapes of its values.
        image: Name of the image input.
        axes: Its height and width axes: (2, 3) for NCHW, (1, 2) for NHWC.
    """
    known = {image: _Reach((1.0, 1.0), (1.0, 1.0), axes)}
    for node in topology.nodes:
        reaches = [known[name] for name in node.input if name in known]
        if not reaches or any(item.axes != reaches[0].axes for item in reaches):
            continue
        joined = _Reach(
            (max(item.field[0] for item in reaches), max(item.field[1] for item in reaches)),
            (max(item.jump[0] for item in reaches), max(item.jump[1] for item in reaches)),
            reaches[0].axes,
        )
        reach = _step(node, joined, shapes)
        if reach is not None:
            known.update((name, reach) for name in node.output if name)
    return {name: round(max(reach.field)) for name, reach in known.items()}
