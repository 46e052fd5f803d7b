"""Quantised ops as float arithmetic with straight-through gradients.

Integer values are float tensors that hold whole numbers, so that gradients pass: the derivative of rounding is
taken as 1, that of saturation as 0 outside of the range (Bengio et al. 2013, "Estimating or propagating
gradients through stochastic neurons"). Sums of products of 8-bit integers are exact in float32 up to 2^24.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx import TensorProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OnnxMapping, OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .conv import Conv
from .nodes import constant, converted, given
from .windows import Windows

__all__ = [
    "ConvInteger",
    "Dequantise",
    "DynamicQuantise",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "Quantise",
    "Rounding",
    "Truncating",
    "holds_integers",
]

RANGES = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
}
"""Integer types that values may be quantised to."""


class _StraightThrough(torch.autograd.Function):
    """(x, y) -> y, with the gradient of x itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        """Take y."""
        del ctx, x
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient to x."""
        del ctx
        return gradients[0], None


def nearest_whole(x: Tensor) -> Tensor:
    """The nearest whole number, the even one of two, with the gradient of x itself."""
    made: Tensor = _StraightThrough.apply(x, x.detach().round())
    return made


def _float(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.float32)


def _along(x: Tensor, rank: int, axis: int) -> Tensor:
    """A scale or zero point per slice of `axis`, ready to broadcast; a single one as it is."""
    if x.numel() == 1:
        return x.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return x.reshape(shape)


class Rounding(nn.Module):
    """A module whose results are whole numbers.

    Attributes:
        rounds: False: it gives the numbers before rounding, for comparison.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rounds = True

    def _rounded(self, x: Tensor) -> Tensor:
        return nearest_whole(x) if self.rounds else x


class Truncating(Rounding):
    """The whole part of what `inner` makes of integers: onnxruntime's interpolation keeps their type."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, *rest: Tensor, **named: Tensor) -> Tensor:
        """Compute and cut off; the number before rounding is the middle of what is cut to the same integer."""
        made: Tensor = self.inner(_float(x), *rest, **named)
        if not self.rounds:
            return made - 0.5 * made.sign()
        cut: Tensor = _StraightThrough.apply(made, made.detach().trunc())
        return cut


def holds_integers(node: OnnxNode, graph: OnnxGraph) -> bool:
    """Whether the node's first input is of an integer type, in the file."""
    info = graph.value_info.get(node.input_values[0])
    return info is not None and info.type.tensor_type.elem_type in RANGES


class Quantise(Rounding):
    """x -> clip(round(x / scale) + zero, low, high)."""

    def __init__(self, axis: int, bounds: tuple[int, int]) -> None:
        super().__init__()
        self.axis, self.bounds = axis, bounds

    def forward(self, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """Quantise."""
        steps = self._rounded(x / _along(scale, x.dim(), self.axis))
        if zero is not None:
            steps = steps + _along(_float(zero), x.dim(), self.axis)
        low, high = self.bounds
        return steps.nan_to_num(nan=low).clamp(low, high)  # as onnxruntime does on x86


class Dequantise(nn.Module):
    """x -> (x - zero) scale."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """Dequantise."""
        steps = _float(x).to(scale.dtype)
        if zero is not None:
            steps = steps - _along(_float(zero), x.dim(), self.axis)
        return steps * _along(scale, x.dim(), self.axis)


class DynamicQuantise(Rounding):
    """x -> (quantised x, scale, zero): the range is that of x itself (of the whole batch), 0 included."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise."""
        fixed = x.detach()
        low, high = fixed.amin().clamp(max=0), fixed.amax().clamp(min=0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = (-low / scale).clamp(0, 255).round()
        return (self._rounded(x / scale) + zero).clamp(0, 255), scale, zero


def _shifted(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    return _float(x) if zero is None else _float(x) - _along(_float(zero), x.dim(), axis)


class ConvInteger(nn.Module):
    """x, zero of x -> the convolution of x - zero with `weight`, in which its zero point is taken off."""

    def __init__(self, conv: Conv, weight: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor, zero: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Convolve."""
        steps = _shifted(x, zero, 1).to(self.weight.dtype)
        made: Tensor = self.conv(steps, self.weight, None if bias is None else _float(bias).to(steps.dtype))
        return made


def _integer_product(a: Tensor, b: Tensor, zero_a: Tensor | None, zero_b: Tensor | None) -> Tensor:
    left, right = _shifted(a, zero_a, a.dim() - 2), _shifted(b, zero_b, b.dim() - 1)
    return left @ right.to(left.dtype)


class MatMulInteger(nn.Module):
    """a, b, zero of a (per row), zero of b (per column) -> (a - zero) (b - zero)."""

    def forward(self, a: Tensor, b: Tensor, zero_a: Tensor | None = None, zero_b: Tensor | None = None) -> Tensor:
        """Multiply."""
        return _integer_product(a, b, zero_a, zero_b)


class _Requantising(Rounding):
    """Products of integers, in steps of `unit`, to integers in steps of `scale`."""

    def __init__(self, bounds: tuple[int, int]) -> None:
        super().__init__()
        self.bounds = bounds

    def _requantised(self, steps: Tensor, unit: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """clip(round(steps unit / scale) + zero)."""
        made = self._rounded(steps * (unit / scale.reshape(()))) + _float(zero).reshape(())
        return made.clamp(*self.bounds)


class QLinearConv(_Requantising):
    """x, its scale and zero, scale of the weight, scale and zero of y, bias in units of both scales -> y."""

    def __init__(self, conv: ConvInteger, bounds: tuple[int, int]) -> None:
        super().__init__(bounds)
        self.conv = conv

    def forward(
        self,
        x: Tensor,
        scale_x: Tensor,
        zero_x: Tensor,
        scale_w: Tensor,
        scale_y: Tensor,
        zero_y: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Convolve and quantise."""
        steps = self.conv(x, zero_x, bias)
        unit = scale_x.reshape(()) * _along(scale_w, x.dim(), 1)
        return self._requantised(steps, unit, scale_y, zero_y)


class QLinearMatMul(_Requantising):
    """a and b, each with scale and zero (per row of a, per column of b), scale and zero of y -> y."""

    def forward(
        self,
        a: Tensor,
        scale_a: Tensor,
        zero_a: Tensor,
        b: Tensor,
        scale_b: Tensor,
        zero_b: Tensor,
        scale_y: Tensor,
        zero_y: Tensor,
    ) -> Tensor:
        """Multiply and quantise."""
        steps = _integer_product(a, b, zero_a, zero_b)
        unit = _along(scale_a, a.dim(), a.dim() - 2) * _along(scale_b, b.dim(), b.dim() - 1)
        return self._requantised(steps, unit, scale_y, zero_y)


def _bounds(node: OnnxNode, graph: OnnxGraph, index: int) -> tuple[int, int]:
    """Range of the integer type that the node makes: that of its zero point, of `output_dtype`, or uint8."""
    kind = node.attributes.get("output_dtype", 0) or TensorProto.UINT8
    if given(node, index):
        name = node.input_values[index]
        if name not in graph.initializers:
            raise NotImplementedError(f"the zero point '{name}' must be a constant, but is computed at run time")
        kind = graph.initializers[name].proto.data_type
    if kind not in RANGES:
        raise NotImplementedError(f"quantising to {TensorProto.DataType.Name(kind)}")
    return RANGES[kind]


def _no_blocks(node: OnnxNode) -> None:
    if node.attributes.get("block_size", 0):
        raise NotImplementedError(f"block_size {node.attributes['block_size']}")


_VERSIONS = (10, 13, 19, 21, 23, 24, 25, 28)


@register("QuantizeLinear", *_VERSIONS)
@register("QuantizeLinear", 1, domain="com.microsoft")
def _quantise(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    _no_blocks(node)
    return converted(Quantise(node.attributes.get("axis", 1), _bounds(node, graph, 2)), node)


@register("DequantizeLinear", *_VERSIONS)
@register("DequantizeLinear", 1, domain="com.microsoft")
def _dequantise(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    _no_blocks(node)
    return converted(Dequantise(node.attributes.get("axis", 1)), node)


@register("DynamicQuantizeLinear", 11)
def _dynamic(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(DynamicQuantise(), node)


def _integer_conv(node: OnnxNode, graph: OnnxGraph, index: int, zero: int) -> ConvInteger:
    """The convolution with the constant weight and zero point of the inputs number `index` and `zero`."""
    weight, shift = constant(node, graph, index), constant(node, graph, zero)
    if weight is None:
        raise NotImplementedError("a convolution without a weight")
    shape = node.attributes.get("kernel_shape", weight.shape[2:])
    if len(shape) not in (1, 2, 3):
        raise NotImplementedError(f"a convolution over {len(shape)} axes; 1 to 3 are possible")
    conv = Conv(Windows.of(node, shape), node.attributes.get("group", 1))
    return ConvInteger(conv, _shifted(weight, shift, 0))


def _reading(module: nn.Module, node: OnnxNode, *indices: int) -> OperationConverterResult:
    values = [node.input_values[index] if index < len(node.input_values) else "" for index in indices]
    while not values[-1]:
        values.pop()
    return OperationConverterResult(module, OnnxMapping(tuple(values), node.output_values))


@register("ConvInteger", 10)
def _conv_integer(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    return _reading(_integer_conv(node, graph, 1, 3), node, 0, 2)


@register("MatMulInteger", 10)
def _matmul_integer(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(MatMulInteger(), node)


@register("QLinearConv", 10)
def _qlinear_conv(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    module = QLinearConv(_integer_conv(node, graph, 3, 5), _bounds(node, graph, 7))
    return _reading(module, node, 0, 1, 2, 4, 6, 7, 8)


@register("QLinearMatMul", 10, 21)
def _qlinear_matmul(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    return converted(QLinearMatMul(_bounds(node, graph, 7)), node)
