"""Receptive fields along the graph.

Per axis, with kernel k, dilation d and stride s (Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill 2019): field' = field + (k - 1) d jump; jump' = s jump. Branches join by the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from .topology import Topology

__all__ = ["receptive_fields"]

WINDOWED = frozenset({"Conv", "FusedConv", "MaxPool", "AveragePool", "LpPool"})
GLOBAL = frozenset({
    "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Gemm", "MatMul", "Flatten", "InstanceNormalization",
    "GroupNormalization", "ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "Attention", "Einsum", "ConvTranspose",
    "LayerNormalization", "NonMaxSuppression", "GridSample",
})  # fmt: skip
"""Ops after which a value is taken to see the whole input (or something that is not followed)."""


@dataclass(frozen=True)
class _Reach:
    """Field and jump in input pixels, each (vertical, horizontal)."""

    field: tuple[float, float]
    jump: tuple[float, float]


def _ints(node: onnx.NodeProto, name: str) -> list[int] | None:
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints)
    return None


def _windowed(node: onnx.NodeProto, reach: _Reach, shapes: Mapping[str, tuple[int, ...]]) -> _Reach | None:
    kernel = _ints(node, "kernel_shape")
    if kernel is None:
        weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
        kernel = list(weight[2:]) if weight else None
    if kernel is None or len(kernel) != 2:
        return None
    strides = _ints(node, "strides") or [1, 1]
    dilations = _ints(node, "dilations") or [1, 1]
    field = tuple(reach.field[i] + (kernel[i] - 1) * dilations[i] * reach.jump[i] for i in (0, 1))
    jump = tuple(reach.jump[i] * strides[i] for i in (0, 1))
    return _Reach((field[0], field[1]), (jump[0], jump[1]))


def _resized(node: onnx.NodeProto, reach: _Reach, shapes: Mapping[str, tuple[int, ...]]) -> _Reach | None:
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if not before or not after or len(before) != 4 or len(after) != 4 or 0 in after:
        return None
    jump = tuple(reach.jump[i] * before[2 + i] / after[2 + i] for i in (0, 1))
    field = tuple(reach.field[i] + reach.jump[i] for i in (0, 1))
    return _Reach((field[0], field[1]), (jump[0], jump[1]))


def _step(node: onnx.NodeProto, reach: _Reach, shapes: Mapping[str, tuple[int, ...]]) -> _Reach | None:
    if node.op_type in WINDOWED:
        return _windowed(node, reach, shapes)
    if node.op_type in GLOBAL:
        return None
    if node.op_type in ("Resize", "Upsample"):
        return _resized(node, reach, shapes)
    if node.op_type == "Reshape":
        before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        return reach if len(before) >= 4 and before[-2:] == after[-2:] else None
    return reach


def receptive_fields(topology: Topology, shapes: Mapping[str, tuple[int, ...]], image: str) -> dict[str, int]:
    """Receptive fields of the values, edge in input pixels (the longer one), not clipped to the input's size.

    A value that sees the whole input is left out; where it meets one that does not (the gate of squeeze-excite), the
    field of the other counts.
    """
    known = {image: _Reach((1.0, 1.0), (1.0, 1.0))}
    for node in topology.nodes:
        reaches = [known[name] for name in node.input if name in known]
        if not reaches:
            continue
        joined = _Reach(
            (max(item.field[0] for item in reaches), max(item.field[1] for item in reaches)),
            (max(item.jump[0] for item in reaches), max(item.jump[1] for item in reaches)),
        )
        reach = _step(node, joined, shapes)
        if reach is not None:
            known.update((name, reach) for name in node.output if name)
    return {name: round(max(reach.field)) for name, reach in known.items()}
