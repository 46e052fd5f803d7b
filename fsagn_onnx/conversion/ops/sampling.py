"""Reading an image at computed places: GridSample, AffineGrid, CenterCropPad, Col2Im."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted

__all__ = ["AffineGrid", "CenterCropPad", "Col2Im", "GridSample"]

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


class GridSample(nn.Module):
    """x (N, C, ...), grid (N, ..., 2 or 3) in [-1, 1] -> x at the grid's places."""

    def __init__(self, mode: str, padding: str, *, corners: bool) -> None:
        super().__init__()
        self.mode, self.padding, self.corners = mode, padding, corners

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        """Sample."""
        return F.grid_sample(x, grid, self.mode, self.padding, self.corners)


@register("GridSample", 16, 20, 22)
def _grid_sample(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    mode = _MODES[node.attributes.get("mode", "linear")]
    padding, corners = node.attributes.get("padding_mode", "zeros"), bool(node.attributes.get("align_corners", 0))
    return converted(GridSample(mode, padding, corners=corners), node)


class AffineGrid(nn.Module):
    """theta (N, 2, 3) or (N, 3, 4), size -> the grid that GridSample reads."""

    def __init__(self, *, corners: bool) -> None:
        super().__init__()
        self.corners = corners

    def forward(self, theta: Tensor, size: Tensor) -> Tensor:
        """Make the grid."""
        return F.affine_grid(theta, size.tolist(), self.corners)


@register("AffineGrid", 20)
def _affine_grid(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(AffineGrid(corners=bool(node.attributes.get("align_corners", 0))), node)


class CenterCropPad(nn.Module):
    """x, shape -> x cropped or zero-padded around its centre to `shape` along `axes`."""

    def __init__(self, axes: tuple[int, ...] | None) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor, shape: Tensor) -> Tensor:
        """Crop and pad."""
        axes = range(x.dim()) if self.axes is None else self.axes
        flat = [0] * (2 * x.dim())
        for axis, size in zip(axes, shape.tolist(), strict=True):
            gap = size - x.shape[axis]
            before = gap // 2 if gap >= 0 else -(-gap // 2)
            place = 2 * (x.dim() - 1 - axis % x.dim())
            flat[place], flat[place + 1] = before, gap - before
        return F.pad(x, flat)


@register("CenterCropPad", 18)
def _center_crop_pad(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    axes = node.attributes.get("axes")
    return converted(CenterCropPad(None if axes is None else tuple(axes)), node)


class Col2Im(nn.Module):
    """Columns (N, C k, L) -> the image (N, C, H, W) in which overlapping windows add up."""

    def __init__(self, size: tuple[int, ...], kernel: tuple[int, ...], node: OnnxNode) -> None:
        super().__init__()
        given, rank = node.attributes, len(kernel)
        pads = given.get("pads", [0] * (2 * rank))
        if rank != 2 or pads[:rank] != pads[rank:]:
            raise NotImplementedError("Col2Im with one-sided padding, or not over two axes")
        self.size, self.kernel, self.pads = size, kernel, tuple(pads[:rank])
        self.strides, self.dilations = (tuple(given.get(name, [1] * rank)) for name in ("strides", "dilations"))

    def forward(self, x: Tensor) -> Tensor:
        """Fold."""
        return F.fold(x, self.size, self.kernel, self.dilations, self.pads, self.strides)


@register("Col2Im", 18)
def _col2im(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    sizes = [constant(node, graph, index) for index in (1, 2)]
    size, kernel = (tuple(torch.as_tensor(part).tolist()) for part in sizes)
    return converted(Col2Im(size, kernel, node), node, 1)
