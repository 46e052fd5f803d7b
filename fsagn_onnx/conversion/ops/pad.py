"""Pad. onnx2torch lacks axes as an input (op version 18), `wrap`, and reflection along all axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, given, integers, known_constant

__all__ = ["Pad", "PadAsComputed"]

Numbers = tuple[int, ...]
_MODES = ("constant", "reflect", "edge", "wrap")


def _source(length: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    """Which cell of an axis each cell of the padded axis takes its value from."""
    cells = torch.arange(-begin, length + end, device=device)
    if mode == "edge":
        return cells.clamp(0, length - 1)
    if mode == "wrap" or length == 1:
        return cells % length
    period = 2 * (length - 1)
    return (length - 1) - (cells % period - (length - 1)).abs()


def _padded(x: Tensor, pads: Numbers, axes: Numbers | None, mode: str, value: float) -> Tensor:
    """ONNX's order of `pads`: the beginnings of all axes, then the ends; negative numbers crop."""
    axes = tuple(range(x.dim())) if axes is None else axes
    pairs = {a % x.dim(): (b, e) for a, b, e in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)}
    if mode == "constant":
        flat = [side for axis in reversed(range(x.dim())) for side in pairs.get(axis, (0, 0))]
        return F.pad(x, flat, value=value)
    for axis, (begin, end) in pairs.items():
        if begin or end:
            x = x.index_select(axis, _source(x.shape[axis], begin, end, mode, x.device))
    return x


class Pad(nn.Module):
    """x -> x with cells added (or cut off) at both ends of its axes."""

    def __init__(self, pads: Numbers, axes: Numbers | None, mode: str, value: float) -> None:
        super().__init__()
        self.pads, self.axes, self.mode, self.value = pads, axes, mode, value

    def forward(self, x: Tensor) -> Tensor:
        """Pad."""
        return _padded(x, self.pads, self.axes, self.mode, self.value)


class PadAsComputed(nn.Module):
    """x, pads, value, axes -> the padded x."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        """Pad."""
        chosen = None if axes is None else tuple(axes.tolist())
        return _padded(x, tuple(pads.tolist()), chosen, self.mode, 0.0 if value is None else value.item())


@register("Pad", 1, 2, 11, 13, 18, 19, 21, 23, 24, 25)
def _pad(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    mode = node.attributes.get("mode", "constant")
    if mode not in _MODES:
        raise NotImplementedError(f"mode must be one of {', '.join(_MODES)}, but is '{mode}'")
    if not all(known_constant(node, graph, index) for index in (1, 2, 3)):
        return converted(PadAsComputed(mode), node)
    name = "paddings" if "paddings" in node.attributes else "pads"
    pads, axes = integers(node, graph, name, 1) or (), integers(node, graph, "axes", 3)
    filled = constant(node, graph, 2) if given(node, 2) else None
    value = node.attributes.get("value", 0.0) if filled is None else filled.item()
    return converted(Pad(pads, axes, mode, value), node, 1)
