"""Reductions over axes. onnx2torch lacks axes as an input (op version 18) and miscounts negative axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted, integers

__all__ = ["REDUCTIONS", "Reduce"]

Axes = tuple[int, ...]


def _prod(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keep)
    return x


REDUCTIONS: dict[str, Callable[[Tensor, Axes, bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: torch.amax(x, axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: torch.amin(x, axes, keep),
    "ReduceProd": _prod,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


class Reduce(nn.Module):
    """x (d_0, ..., d_n) -> the reduction over `axes`; where there are none over all, or none if `noop`."""

    def __init__(self, op: str, axes: Axes | None, *, keep: bool, noop: bool) -> None:
        super().__init__()
        self.op, self.axes, self.keep, self.noop = op, axes, keep, noop

    def forward(self, x: Tensor) -> Tensor:
        """Reduce."""
        if not self.axes and self.noop:  # what comes before and after the sum still applies: log, square, ...
            return REDUCTIONS[self.op](x.unsqueeze(-1), (-1,), False)
        return REDUCTIONS[self.op](x, self.axes or tuple(range(x.dim())), self.keep)


def _reduce(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    axes = integers(node, graph, "axes", 1)
    keep = bool(node.attributes.get("keepdims", 1))
    noop = bool(node.attributes.get("noop_with_empty_axes", 0))
    return converted(Reduce(node.operation_type, axes, keep=keep, noop=noop), node, 1)


_VERSIONS = {
    "ReduceSum": (1, 11, 13),
    "ReduceMax": (1, 11, 12, 13, 18, 20),
    "ReduceMin": (1, 11, 12, 13, 18, 20),
    "ReduceLogSum": (1, 11, 13, 18, 28),
    "ReduceLogSumExp": (1, 11, 13, 18, 28),
}
for _op in REDUCTIONS:
    register(_op, *_VERSIONS.get(_op, (1, 11, 13, 18)))(_reduce)
