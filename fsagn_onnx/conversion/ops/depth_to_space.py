"""DepthToSpace (onnx2torch has one of its two modes) and SpaceToDepth."""

from __future__ import annotations

import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted

__all__ = ["DepthToSpace", "SpaceToDepth"]


class DepthToSpace(nn.Module):
    """x (N, C b b, h, w) -> (N, C, h b, w b). DCR: channels are ordered (b, b, C); CRD: (C, b, b)."""

    def __init__(self, block: int, *, depth_first: bool) -> None:
        super().__init__()
        self.block, self.depth_first = block, depth_first

    def forward(self, x: Tensor) -> Tensor:
        """Rearrange."""
        if self.depth_first:
            parts = x.reshape(x.shape[0], self.block**2, -1, *x.shape[2:])  # (N, b b, C, h, w)
            x = parts.transpose(1, 2).flatten(1, 2)
        return F.pixel_shuffle(x, self.block)


class SpaceToDepth(nn.Module):
    """x (N, C, h b, w b) -> (N, b b C, h, w)."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Rearrange."""
        made = F.pixel_unshuffle(x, self.block)
        parts = made.reshape(x.shape[0], -1, self.block**2, *made.shape[2:])  # (N, C, b b, h, w)
        return parts.transpose(1, 2).flatten(1, 2)


@register("DepthToSpace", 1, 11, 13, 28)
def _depth_to_space(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    mode = node.attributes.get("mode", "DCR")
    return converted(DepthToSpace(node.attributes["blocksize"], depth_first=mode == "DCR"), node)


@register("SpaceToDepth", 1, 13)
def _space_to_depth(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(SpaceToDepth(node.attributes["blocksize"]), node)
