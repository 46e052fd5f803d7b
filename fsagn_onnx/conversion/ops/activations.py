"""Elementwise activations that onnx2torch lacks, or takes only with some of their arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, given, known_constant

__all__ = ["Clip", "Elementwise", "Hardmax", "PRelu", "Shrink", "Swish", "ThresholdedRelu"]


class Clip(nn.Module):
    """x -> min(max(x, low), high); None: no bound. Bounds that are computed come as inputs."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """Clip."""
        if low is None and high is None:
            return x if self.low is None and self.high is None else torch.clamp(x, self.low, self.high)
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)


def _number(value: Tensor | float | None) -> float | None:
    return value.item() if isinstance(value, Tensor) else value  # an integer stays one, and so does what it clips


@register("Clip", 6, 11, 12, 13)
def _clip(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if not (known_constant(node, graph, 1) and known_constant(node, graph, 2)):
        return converted(Clip(None, None), node)
    low = _number(constant(node, graph, 1) if given(node, 1) else node.attributes.get("min"))
    high = _number(constant(node, graph, 2) if given(node, 2) else node.attributes.get("max"))
    if low == 0 and high == 6:
        return converted(nn.ReLU6(), node, 1)
    return converted(nn.ReLU() if low == 0 and high is None else Clip(low, high), node, 1)


class PRelu(nn.Module):
    """x, slope (broadcasts to x) -> x where x >= 0, else slope x."""

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Activate."""
        return torch.where(x >= 0, x, x * slope)


@register("PRelu", 7, 9, 16)
def _prelu(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(PRelu(), node)


class Swish(nn.Module):
    """x -> x sigmoid(alpha x)."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Activate."""
        return F.silu(x) if self.alpha == 1 else x * torch.sigmoid(self.alpha * x)


@register("Swish", 24)
def _swish(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(Swish(node.attributes.get("alpha", 1.0)), node)


class ThresholdedRelu(nn.Module):
    """x -> x where x > alpha, else 0."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Activate."""
        return F.threshold(x, self.alpha, 0.0)


@register("ThresholdedRelu", 10, 22)
def _thresholded_relu(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(ThresholdedRelu(node.attributes.get("alpha", 1.0)), node)


@register("Mish", 18, 22)
def _mish(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(nn.Mish(), node)


@register("Gelu", 20)
def _gelu(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(nn.GELU(approximate=node.attributes.get("approximate", "none")), node)


class Shrink(nn.Module):
    """x -> x + bias where x < -lambd, x - bias where x > lambd, else 0."""

    def __init__(self, lambd: float, bias: float) -> None:
        super().__init__()
        self.lambd, self.bias = lambd, bias

    def forward(self, x: Tensor) -> Tensor:
        """Shrink."""
        outside = x.abs() > self.lambd
        return torch.where(outside, x - self.bias * x.sign(), torch.zeros_like(x))


@register("Shrink", 9)
def _shrink(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(Shrink(node.attributes.get("lambd", 0.5), node.attributes.get("bias", 0.0)), node)


class Hardmax(nn.Module):
    """x -> 1 at the first maximum along `axis` (of the axes from `axis` on, where `coerced`), else 0."""

    def __init__(self, axis: int, *, coerced: bool) -> None:
        super().__init__()
        self.axis, self.coerced = axis, coerced

    def forward(self, x: Tensor) -> Tensor:
        """Choose."""
        flat = x.flatten(self.axis % x.dim()) if self.coerced else x
        axis = -1 if self.coerced else self.axis
        chosen = torch.zeros_like(flat).scatter(axis, flat.argmax(axis, keepdim=True), 1.0)
        return chosen.reshape(x.shape)


@register("Hardmax", 13)
def _hardmax(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(Hardmax(node.attributes.get("axis", -1), coerced=False), node)


@register("Hardmax", 1, 11)
def _coerced_hardmax(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(Hardmax(node.attributes.get("axis", 1), coerced=True), node)


class Elementwise(nn.Module):
    """x -> function(x)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        return self.function(x)


_HYPERBOLIC: dict[str, Callable[[Tensor], Tensor]] = {
    "Acosh": torch.acosh,
    "Asinh": torch.asinh,
    "Atanh": torch.atanh,
    "Cosh": torch.cosh,
    "Sinh": torch.sinh,
}


def _hyperbolic(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(Elementwise(_HYPERBOLIC[node.operation_type]), node)


for _op in _HYPERBOLIC:
    register(_op, 9, 22)(_hyperbolic)
