"""Convolutions. onnx2torch lacks `auto_pad`, computed weights, and transposed ones with one-sided padding."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, dims_of, given, known_constant
from .windows import Windows, pad_spatial

__all__ = ["Conv", "ConvTranspose", "Weighted"]

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


class Conv(nn.Module):
    """x (N, C, ...), weight (K, C / groups, ...), bias (K) -> (N, K, ...)."""

    def __init__(self, windows: Windows, groups: int) -> None:
        super().__init__()
        self.windows, self.groups = windows, groups
        self.plain = windows.symmetric()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve."""
        windows, rank = self.windows, len(self.windows.kernel)
        padding = self.plain
        if padding is None:
            pads = windows.padding(x.shape[2:])
            even = all(begin == end for begin, end in pads)
            padding = tuple(begin for begin, _ in pads) if even else (0,) * rank
            x = x if even else pad_spatial(x, pads)
        return _CONV[rank](x, weight, bias, windows.strides, padding, windows.dilations, self.groups)


class ConvTranspose(nn.Module):
    """x (N, C, ...), weight (C, K / groups, ...), bias (K) -> (N, K, ...).

    Attributes:
        output_shape: spatial output size that decides the padding, or None.
    """

    def __init__(
        self, windows: Windows, groups: int, extra: tuple[int, ...], output_shape: tuple[int, ...] | None
    ) -> None:
        super().__init__()
        self.windows, self.groups, self.extra, self.output_shape = windows, groups, extra, output_shape

    def _pads(self, size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Cells to crop off the full output, (begin, end) per axis."""
        windows = self.windows
        wanted = self.output_shape
        if wanted is None and windows.same:
            wanted = tuple(n * s for n, s in zip(size, windows.strides, strict=True))
        if wanted is None:
            return windows.pads
        pads = []
        for n, s, e, extra, out in zip(size, windows.strides, windows.extents, self.extra, wanted, strict=True):
            total = max(s * (n - 1) + extra + e - out, 0)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if windows.auto == "SAME_UPPER" else (more, less))
        return tuple(pads)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve."""
        windows, rank = self.windows, len(self.windows.kernel)
        transpose = _TRANSPOSE[rank]
        pads = self._pads(tuple(x.shape[2:]))
        shared = (windows.strides, self.extra, self.groups, windows.dilations)
        if all(begin == end for begin, end in pads):
            strides, *rest = shared
            return transpose(x, weight, bias, strides, tuple(begin for begin, _ in pads), *rest)
        strides, *rest = shared
        full = transpose(x, weight, bias, strides, 0, *rest)
        return pad_spatial(full, tuple((-begin, -end) for begin, end in pads))


class Weighted(nn.Module):
    """A conv with its constant weight and bias: x -> conv(x, weight, bias)."""

    def __init__(self, conv: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.conv = conv
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        made: Tensor = self.conv(x, self.weight, self.bias)
        return made


def _with_weights(conv: nn.Module, node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    weight = constant(node, graph, 1) if known_constant(node, graph, 1) else None
    if weight is None or not known_constant(node, graph, 2):
        return converted(conv, node, 3 if given(node, 2) else 2)
    return converted(Weighted(conv, weight, constant(node, graph, 2)), node, 1)


def _kernel(node: OnnxNode, graph: OnnxGraph) -> tuple[int, ...]:
    dims = dims_of(node, graph, 1)
    shape = node.attributes.get("kernel_shape", None if dims is None else dims[2:])
    if shape is None or None in shape:
        raise NotImplementedError(f"the shape of the weight '{node.input_values[1]}' is not known")
    if len(shape) not in _CONV:
        raise NotImplementedError(f"a convolution over {len(shape)} axes; 1 to 3 are possible")
    return tuple(shape)


@register("Conv", 1, 11, 22)
def _conv(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    windows = Windows.of(node, _kernel(node, graph))
    return _with_weights(Conv(windows, node.attributes.get("group", 1)), node, graph)


@register("ConvTranspose", 1, 11, 22)
def _conv_transpose(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    windows = Windows.of(node, _kernel(node, graph))
    extra = tuple(node.attributes.get("output_padding", [0] * len(windows.kernel)))
    shape = node.attributes.get("output_shape")
    wanted = None if shape is None else tuple(shape[-len(windows.kernel) :])
    return _with_weights(ConvTranspose(windows, node.attributes.get("group", 1), extra, wanted), node, graph)
