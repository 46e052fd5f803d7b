"""Max and average pooling. onnx2torch lacks `auto_pad`, one-sided padding of averages, newer op versions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted
from .windows import Pairs, Windows, pad_spatial

__all__ = ["AveragePool", "GlobalMaxPool", "MaxPool"]

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Pool(nn.Module):
    """Pooling over `windows`; `plain` is the padding that torch's own pooling can do itself, else None."""

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        self.windows = windows
        pads = windows.symmetric()
        fits = pads is not None and all(2 * p <= k for p, k in zip(pads, windows.kernel, strict=True))
        self.plain = pads if fits and not windows.ceil else None

    def _pads(self, size: torch.Size) -> Pairs:
        """(begin, end) per axis such that the windows fit in exactly; the end may be negative."""
        windows = self.windows
        counts, pads = windows.counts(size), windows.padding(size)
        lengths = [(n - 1) * s + e for n, s, e in zip(counts, windows.strides, windows.extents, strict=True)]
        return tuple((begin, length - old - begin) for (begin, _), length, old in zip(pads, lengths, size, strict=True))


class MaxPool(_Pool):
    """x (N, C, ...) -> the maximum of each window; padding never wins."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        windows, rank = self.windows, len(self.windows.kernel)
        pads: tuple[int, ...] = self.plain or (0,) * rank
        if self.plain is None:
            x = pad_spatial(x, self._pads(x.shape[2:]), -math.inf)
        return _MAX[rank](x, windows.kernel, windows.strides, pads, windows.dilations)


class AveragePool(_Pool):
    """x (N, C, ...) -> the mean of each window's cells inside the input (`count_pads`: and the padding)."""

    def __init__(self, windows: Windows, *, count_pads: bool) -> None:
        super().__init__(windows)
        self.count_pads = count_pads

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        kernel, strides = self.windows.kernel, self.windows.strides
        average = _AVERAGE[len(kernel)]
        if self.plain is not None:
            return average(x, kernel, strides, self.plain, count_include_pad=self.count_pads)
        size = x.shape[2:]
        fitting, stated = self._pads(size), self.windows.padding(size)
        counted = x.new_ones((1, 1, *size))
        if self.count_pads:
            counted = pad_spatial(counted, stated, 1.0)
        rest = tuple((0, f[1] - s[1]) for f, s in zip(fitting, stated, strict=True))
        counted = pad_spatial(counted, rest if self.count_pads else fitting)
        return average(pad_spatial(x, fitting), kernel, strides) / average(counted, kernel, strides)


class GlobalMaxPool(nn.Module):
    """x (N, C, ...) -> (N, C, 1, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        return torch.amax(x, tuple(range(2, x.dim())), True)


def _windows(node: OnnxNode) -> Windows:
    windows = Windows.of(node, node.attributes["kernel_shape"])
    if len(windows.kernel) not in _MAX:
        raise NotImplementedError(f"pooling over {len(windows.kernel)} axes; 1 to 3 are possible")
    return windows


@register("MaxPool", 1, 8, 10, 11, 12, 22)
def _max_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    if len([value for value in node.output_values if value]) > 1:
        raise NotImplementedError("the output 'Indices' of MaxPool")
    return converted(MaxPool(_windows(node)), node)


@register("AveragePool", 1, 7, 10, 11, 19, 22)
def _average_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    windows = _windows(node)
    if any(d != 1 for d in windows.dilations):
        raise NotImplementedError(f"AveragePool with dilations {windows.dilations}")
    return converted(AveragePool(windows, count_pads=bool(node.attributes.get("count_include_pad", 0))), node)


@register("GlobalMaxPool", 1, 22)
def _global_max_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(GlobalMaxPool(), node)
