"""Slice and Split. onnx2torch reads constant bounds back from the device at each call; it lacks Split-18."""

from __future__ import annotations

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted, given, integers, known_constant

__all__ = ["Slice", "SliceAsComputed", "Split"]

Numbers = tuple[int, ...]


def _sliced(x: Tensor, starts: Numbers, ends: Numbers, axes: Numbers | None, steps: Numbers | None) -> Tensor:
    """Numpy's slicing: bounds are clipped, negative ones count from the end."""
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, stop, stride = slice(start, end, step).indices(x.shape[axis])
        if stride > 0:
            index = [slice(None)] * x.dim()
            index[axis] = slice(first, max(stop, first), stride)
            x = x[tuple(index)]
        else:
            chosen = torch.tensor(list(range(first, stop, stride)), dtype=torch.int64, device=x.device)
            x = x.index_select(axis, chosen)
    return x


class Slice(nn.Module):
    """x -> x[..., start:end:step, ...] along `axes`."""

    def __init__(self, starts: Numbers, ends: Numbers, axes: Numbers | None, steps: Numbers | None) -> None:
        super().__init__()
        self.starts, self.ends, self.axes, self.steps = starts, ends, axes, steps

    def forward(self, x: Tensor) -> Tensor:
        """Slice."""
        return _sliced(x, self.starts, self.ends, self.axes, self.steps)


class SliceAsComputed(nn.Module):
    """x, starts, ends, axes, steps (int tensors) -> the slice."""

    def forward(
        self, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Slice."""
        numbers = [None if t is None else tuple(t.tolist()) for t in (axes, steps)]
        return _sliced(x, tuple(starts.tolist()), tuple(ends.tolist()), *numbers)


@register("Slice", 1, 10, 11, 13)
def _slice(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if not all(known_constant(node, graph, index) for index in range(1, 5)):
        return converted(SliceAsComputed(), node)
    starts, ends = integers(node, graph, "starts", 1) or (), integers(node, graph, "ends", 2) or ()
    axes, steps = integers(node, graph, "axes", 3), integers(node, graph, "steps", 4)
    return converted(Slice(starts, ends, axes, steps), node, 1)


class Split(nn.Module):
    """x -> its parts along `axis`: of `sizes`, or `count` of equal size (the last may be smaller)."""

    def __init__(self, axis: int, sizes: Numbers | None, count: int) -> None:
        super().__init__()
        self.axis, self.sizes, self.count = axis, sizes, count

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split."""
        sizes = self.sizes
        if sizes is None:
            length = x.shape[self.axis]
            part = -(-length // self.count)
            sizes = tuple(max(min(part, length - i * part), 0) for i in range(self.count))
        return torch.split(x, list(sizes), self.axis)


@register("Split", 2, 11, 13, 18)
def _split(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    sizes = integers(node, graph, "split", 1) if "split" in node.attributes or given(node, 1) else None
    count = node.attributes.get("num_outputs", len(node.output_values))
    return converted(Split(node.attributes.get("axis", 0), sizes, count), node, 1)
