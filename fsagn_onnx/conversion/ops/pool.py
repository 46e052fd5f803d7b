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

__all__ = ["AveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool", "MaxPoolIndices", "MaxUnpool"]

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_SUM: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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
        self.dilated = any(d != 1 for d in windows.dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        kernel, strides = self.windows.kernel, self.windows.strides
        if self.plain is not None and not self.dilated:
            return _AVERAGE[len(kernel)](x, kernel, strides, self.plain, count_include_pad=self.count_pads)
        size = x.shape[2:]
        fitting, stated = self._pads(size), self.windows.padding(size)
        counted = x.new_ones((1, 1, *size))
        if self.count_pads:
            counted = pad_spatial(counted, stated, 1.0)
        rest = tuple((0, f[1] - s[1]) for f, s in zip(fitting, stated, strict=True))
        counted = pad_spatial(counted, rest if self.count_pads else fitting)
        return self._mean(pad_spatial(x, fitting)) / self._mean(counted)

    def _mean(self, x: Tensor) -> Tensor:
        """Over every window, without padding."""
        windows = self.windows
        if not self.dilated:
            return _AVERAGE[len(windows.kernel)](x, windows.kernel, windows.strides)
        cells = x.new_full((1, 1, *windows.kernel), 1 / math.prod(windows.kernel))
        planes = x.flatten(0, 1).unsqueeze(1)
        means = _SUM[len(windows.kernel)](planes, cells, None, windows.strides, 0, windows.dilations)
        return means.reshape(*x.shape[:2], *means.shape[2:])


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


class MaxPoolIndices(_Pool):
    """x (N, C, ...) -> the maxima and where they are, as positions in the flattened x."""

    def __init__(self, windows: Windows, *, by_columns: bool) -> None:
        super().__init__(windows)
        if self.plain is None or by_columns:
            raise NotImplementedError("the output 'Indices' of MaxPool with one-sided pads, ceil_mode or storage_order")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pool."""
        windows, rank = self.windows, len(self.windows.kernel)
        pads = self.plain or (0,) * rank
        made, where = _MAX[rank](x, windows.kernel, windows.strides, pads, windows.dilations, return_indices=True)
        planes = torch.arange(math.prod(x.shape[:2]), device=x.device).reshape(*x.shape[:2], *[1] * rank)
        return made, where + planes * math.prod(x.shape[2:])


class MaxUnpool(nn.Module):
    """x, indices (of MaxPool), output shape -> zeros but for x at the indices."""

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        self.windows = windows

    def forward(self, x: Tensor, indices: Tensor, shape: Tensor | None = None) -> Tensor:
        """Unpool."""
        windows = self.windows
        if shape is None:
            rows = zip(x.shape[2:], windows.strides, windows.pads, windows.kernel, strict=True)
            size = [(n - 1) * s - begin - end + k for n, s, (begin, end), k in rows]
        else:
            size = shape.tolist()[2:]
        empty = x.new_zeros(math.prod((*x.shape[:2], *size)))
        made: Tensor = empty.scatter(0, indices.flatten(), x.flatten()).reshape(*x.shape[:2], *size)
        return made


@register("MaxPool", 1, 8, 10, 11, 12, 22)
def _max_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    if len([value for value in node.output_values if value]) > 1:
        by_columns = bool(node.attributes.get("storage_order", 0))
        return converted(MaxPoolIndices(_windows(node), by_columns=by_columns), node)
    return converted(MaxPool(_windows(node)), node)


@register("MaxUnpool", 9, 11, 22)
def _max_unpool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(MaxUnpool(_windows(node)), node)


@register("AveragePool", 1, 7, 10, 11, 19, 22)
def _average_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(AveragePool(_windows(node), count_pads=bool(node.attributes.get("count_include_pad", 0))), node)


class LpPool(_Pool):
    """x (N, C, ...) -> (the sum of |x|^p over each window)^(1/p); padding is 0."""

    def __init__(self, windows: Windows, p: int) -> None:
        super().__init__(windows)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        windows = self.windows
        powers = pad_spatial(x.abs() ** self.p, self._pads(x.shape[2:]))
        cells = powers.new_ones((1, 1, *windows.kernel))
        planes = powers.flatten(0, 1).unsqueeze(1)
        sums = _SUM[len(windows.kernel)](planes, cells, None, windows.strides, 0, windows.dilations)
        return sums.reshape(*x.shape[:2], *sums.shape[2:]) ** (1 / self.p)


class GlobalLpPool(nn.Module):
    """x (N, C, ...) -> (the sum of |x|^p)^(1/p), (N, C, 1, ...)."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        made: Tensor = torch.linalg.vector_norm(x, self.p, tuple(range(2, x.dim())), True)
        return made


@register("LpPool", 2, 11, 18, 22)
def _lp_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(LpPool(_windows(node), node.attributes.get("p", 2)), node)


@register("GlobalLpPool", 2, 22)
def _global_lp_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(GlobalLpPool(node.attributes.get("p", 2)), node)


@register("GlobalMaxPool", 1, 22)
def _global_max_pool(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(GlobalMaxPool(), node)
