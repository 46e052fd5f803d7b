"""What depends on the type or the number of elements: CastLike, Size."""

from __future__ import annotations

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted

__all__ = ["CastLike", "Size"]


class CastLike(nn.Module):
    """x, like -> x in the type of `like`."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Cast."""
        return x.to(like.dtype)


@register("CastLike", 15, 19, 21, 23, 24, 25)
def _cast_like(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(CastLike(), node)


class Size(nn.Module):
    """x -> its number of elements (int64, no axes)."""

    def forward(self, x: Tensor) -> Tensor:
        """Count."""
        return torch.tensor(x.numel(), device=x.device)


@register("Size", 1, 13, 19, 21, 23, 24, 25)
def _size(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(Size(), node)
