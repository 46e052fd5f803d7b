"""Elementwise activations that onnx2torch lacks, or takes only with some of their arguments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, given, known_constant

__all__ = ["Clip", "PRelu", "Swish", "ThresholdedRelu"]


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
