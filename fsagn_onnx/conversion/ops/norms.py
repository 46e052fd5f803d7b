"""Norms over the values of one image. onnx2torch lacks these, and batch norm below opset 9."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted

__all__ = ["BatchNorm", "GroupNorm", "GroupNormByGroup", "LpNorm", "MeanVarianceNorm", "RMSNorm"]


class BatchNorm(nn.Module):
    """x, scale, shift, mean, variance -> (x - mean) / sqrt(variance + epsilon) scale + shift, per channel."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Normalise."""
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, self.epsilon)


@register("BatchNormalization", 7)
def _batch_norm(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    if not node.attributes.get("spatial", 1):
        raise NotImplementedError("spatial=0 (statistics per place)")
    return converted(BatchNorm(node.attributes.get("epsilon", 1e-5)), node)


class GroupNorm(nn.Module):
    """x (N, C, ...), scale, shift -> x normalised over each of `groups` groups of channels."""

    def __init__(self, groups: int, epsilon: float) -> None:
        super().__init__()
        self.groups, self.epsilon = groups, epsilon

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Normalise."""
        return F.group_norm(x, self.groups, scale, shift, self.epsilon)


class GroupNormByGroup(GroupNorm):
    """The same with a scale and a shift per group, not per channel."""

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Normalise."""
        each = x.shape[1] // self.groups
        return super().forward(x, scale.repeat_interleave(each), shift.repeat_interleave(each))


@register("GroupNormalization", 18)
def _group_norm_by_group(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(GroupNormByGroup(node.attributes["num_groups"], node.attributes.get("epsilon", 1e-5)), node)


@register("GroupNormalization", 21)
def _group_norm(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(GroupNorm(node.attributes["num_groups"], node.attributes.get("epsilon", 1e-5)), node)


class RMSNorm(nn.Module):
    """x, scale -> x / sqrt(mean of x^2 + epsilon) scale, over the axes from `axis` on."""

    def __init__(self, axis: int, epsilon: float) -> None:
        super().__init__()
        self.axis, self.epsilon = axis, epsilon

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Normalise."""
        axes = tuple(range(self.axis % x.dim(), x.dim()))
        return x * torch.rsqrt(x.square().mean(axes, True) + self.epsilon) * scale


@register("RMSNormalization", 23)
def _rms_norm(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(RMSNorm(node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5)), node)


class LpNorm(nn.Module):
    """x -> x / (the sum of |x|^p along `axis`)^(1/p); 0 stays 0."""

    def __init__(self, axis: int, p: int) -> None:
        super().__init__()
        self.axis, self.p = axis, p

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        norm = torch.linalg.vector_norm(x, self.p, self.axis, True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@register("LpNormalization", 1, 22)
def _lp_norm(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(LpNorm(node.attributes.get("axis", -1), node.attributes.get("p", 2)), node)


class MeanVarianceNorm(nn.Module):
    """x -> (x - mean) / (sqrt(mean of x^2 - mean^2) + 1e-9) over `axes`."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        gap = x - x.mean(self.axes, True)
        return gap / (gap.square().mean(self.axes, True).sqrt() + 1e-9)


@register("MeanVarianceNormalization", 9, 13)
def _mean_variance(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    return converted(MeanVarianceNorm(tuple(node.attributes.get("axes", (0, 2, 3)))), node)
