"""From a saliency map to masks of an exact area, differentiably.

The soft mask of area a is m = sigmoid((s - theta) / tau) with theta solved so that mean(m) = a. Its threshold needs
its gradient: by the implicit function theorem d theta = sum_p w_p d s_p with w = m (1 - m) / sum m (1 - m).
With theta detached, training drifts along "raise s everywhere" and gets worse than its start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BISECTIONS = 20
EPSILON = 1e-6


def standardise(saliency: Tensor) -> Tensor:
    """Give each map zero mean and unit standard deviation (differentiably).

    Args:
        saliency: ``(..., h, w)``.

    Returns:
        ``(..., h, w)``; a constant map becomes zero.
    """
    centred = saliency - saliency.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-2, -1), keepdim=True).add(EPSILON).sqrt()
    return centred / deviation


class _Threshold(torch.autograd.Function):
    """theta(s, a): the threshold at which the soft mask has area a; implicit gradient with respect to s."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, area: Tensor, tau: float) -> Tensor:
        low = flat.amin(dim=-1, keepdim=True) - 20 * tau
        high = flat.amax(dim=-1, keepdim=True) + 20 * tau
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            too_large = torch.sigmoid((flat - middle) / tau).mean(dim=-1, keepdim=True) > area
            low = torch.where(too_large, middle, low)
            high = torch.where(too_large, high, middle)
        theta = (low + high) / 2
        ctx.save_for_backward(flat, theta)
        ctx.tau = tau
        return theta

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        flat, theta = ctx.saved_tensors
        mask = torch.sigmoid((flat - theta) / ctx.tau)
        slope = mask * (1 - mask)
        weight = slope / slope.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        return gradients[0] * weight, None, None


def soft_mask(saliency: Tensor, area: Tensor, tau: float) -> Tensor:
    """The soft mask of exactly the area a: sigmoid((s - theta(s, a)) / tau).

    Args:
        saliency: ``(P, H, W)`` standardised saliency.
        area: ``(P,)`` areas in (0, 1).
        tau: temperature, in standard deviations of the saliency; the smaller, the more binary.

    Returns:
        ``(P, H, W)`` in (0, 1) with mean ``area`` to about 1e-5.
    """
    flat = saliency.flatten(1)
    theta: Tensor = _Threshold.apply(flat, area[:, None], tau)
    return torch.sigmoid((flat - theta) / tau).view_as(saliency)


def area_rank(saliency: Tensor) -> Tensor:
    """Rank the cells of each map: R = i / (h w), i = 1 for the most salient cell, ties by position.

    Args:
        saliency: ``(..., h, w)``, higher is kept first.

    Returns:
        ``(..., h, w)`` float32 in (0, 1].
    """
    flat = saliency.flatten(-2)
    order = torch.sort(flat, dim=-1, descending=True, stable=True).indices
    cells = flat.shape[-1]
    steps = (torch.arange(1, cells + 1, device=flat.device) / cells).to(torch.float32)
    ranks = torch.empty(flat.shape, dtype=torch.float32, device=flat.device)
    return ranks.scatter_(-1, order, steps.expand_as(flat)).view(saliency.shape)
