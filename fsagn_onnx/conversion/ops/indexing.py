"""Choosing, placing and adding up elements by their position."""

from __future__ import annotations

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, given

__all__ = ["CumSum", "NonZero", "OneHot", "ScatterElements", "ScatterND", "Trilu"]

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


class CumSum(nn.Module):
    """x -> sums along `axis` up to each element (without it: `exclusive`), from the end on if `backwards`."""

    def __init__(self, axis: int, *, exclusive: bool, backwards: bool) -> None:
        super().__init__()
        self.axis, self.exclusive, self.backwards = axis, exclusive, backwards

    def forward(self, x: Tensor) -> Tensor:
        """Add up."""
        made = x.flip(self.axis) if self.backwards else x
        made = made.cumsum(self.axis, dtype=x.dtype)
        if self.exclusive:
            made = made.roll(1, self.axis)
            first = [slice(None)] * x.dim()
            first[self.axis] = slice(0, 1)
            mask = torch.zeros_like(made, dtype=torch.bool)
            mask[tuple(first)] = True
            made = made.masked_fill(mask, 0)
        return made.flip(self.axis) if self.backwards else made


@register("CumSum", 11, 14)
def _cumsum(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    axis = constant(node, graph, 1)
    exclusive, backwards = (bool(node.attributes.get(name, 0)) for name in ("exclusive", "reverse"))
    number = 0 if axis is None else int(axis.item())
    return converted(CumSum(number, exclusive=exclusive, backwards=backwards), node, 1)


class NonZero(nn.Module):
    """x -> positions of what is not 0, (rank, count)."""

    def forward(self, x: Tensor) -> Tensor:
        """Find."""
        return x.nonzero().T.contiguous()


@register("NonZero", 9, 13)
def _nonzero(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(NonZero(), node)


class OneHot(nn.Module):
    """indices, depth, (off, on) -> on at the index along a new axis, else off."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        """Expand."""
        count = int(depth.reshape(-1)[0].item())
        places = indices.to(torch.int64) % count
        axis = self.axis % (indices.dim() + 1)
        shape = [1] * (indices.dim() + 1)
        shape[axis] = count
        hot = places.unsqueeze(axis) == torch.arange(count, device=indices.device).reshape(shape)
        inside = ((indices >= -count) & (indices < count)).unsqueeze(axis)
        return torch.where(hot & inside, values[1], values[0])


@register("OneHot", 9, 11)
def _onehot(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(OneHot(node.attributes.get("axis", -1)), node)


class ScatterElements(nn.Module):
    """x, indices, updates -> x with the updates put in (or added, ...) at the indices along `axis`."""

    def __init__(self, axis: int, reduction: str) -> None:
        super().__init__()
        self.axis, self.reduction = axis, reduction

    def forward(self, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        """Scatter."""
        places = indices.to(torch.int64) % x.shape[self.axis]
        if self.reduction == "none":
            return x.scatter(self.axis, places, updates)
        return x.scatter_reduce(self.axis, places, updates, _REDUCTIONS[self.reduction])


@register("Scatter", 9)
@register("ScatterElements", 11, 13, 16, 18)
def _scatter_elements(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    made = ScatterElements(node.attributes.get("axis", 0), node.attributes.get("reduction", "none"))
    return converted(made, node)


class ScatterND(nn.Module):
    """x, indices (..., k), updates -> x with the updates at the indices of its first k axes."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        """Scatter."""
        depth = indices.shape[-1]
        parts = [indices[..., axis].to(torch.int64) % x.shape[axis] for axis in range(depth)]
        if self.reduction in ("none", "add"):
            return x.index_put(tuple(parts), updates, accumulate=self.reduction == "add")
        place = torch.zeros_like(parts[0])
        for axis, part in enumerate(parts):
            place = place * x.shape[axis] + part
        flat = x.reshape(-1, *x.shape[depth:])
        rows = updates.reshape(-1, *x.shape[depth:])
        where = place.reshape(-1, *[1] * (rows.dim() - 1)).expand_as(rows)
        return flat.scatter_reduce(0, where, rows, _REDUCTIONS[self.reduction]).reshape(x.shape)


@register("ScatterND", 11, 13, 16, 18)
def _scatter_nd(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(ScatterND(node.attributes.get("reduction", "none")), node)


class Trilu(nn.Module):
    """x (..., rows, columns) -> its part above (or below) the k-th diagonal, 0 elsewhere."""

    def __init__(self, *, upper: bool, diagonal: int) -> None:
        super().__init__()
        self.upper, self.diagonal = upper, diagonal

    def forward(self, x: Tensor) -> Tensor:
        """Cut."""
        return x.triu(self.diagonal) if self.upper else x.tril(self.diagonal)


@register("Trilu", 14)
def _trilu(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    shift = constant(node, graph, 1) if given(node, 1) else None
    diagonal = 0 if shift is None else int(shift.item())
    return converted(Trilu(upper=bool(node.attributes.get("upper", 1)), diagonal=diagonal), node, 1)
