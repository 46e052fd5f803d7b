"""Constants of the generator's graph that are worked out of its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .network import gaussian_kernel


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm inside."""
    if norm.running_var is None or norm.running_mean is None:
        raise AssertionError("batch norm without statistics")
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return conv.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


def smoothing_matrix(edge: int, sigma: float) -> Tensor:
    """The Gaussian of `network.gaussian_kernel` along one axis as a matrix, (edge, edge); the border is replicated."""
    row = gaussian_kernel(sigma)[0, 0].sum(dim=0)
    matrix = torch.zeros(edge, edge)
    for cell in range(edge):
        for offset, weight in enumerate(row, start=-2):
            matrix[cell, min(max(cell + offset, 0), edge - 1)] += weight
    return matrix
