"""What training minimises: the paper's objective ``fsagn`` and the default ``budget``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError

ObjectiveName = Literal["budget", "fsagn"]

LOSS_CLAMP = 1.2
"""Relative changes above this give no gradient: a few runaway pairs would dominate it."""


@dataclass(frozen=True)
class Objective:
    """An objective and its weights.

    Attributes:
        name: ``budget`` (areas are drawn, retention is maximised) or ``fsagn`` (area is penalised).
        area_range: range of the log-uniform areas of ``budget``.
        tau: (first, last) temperature of the soft mask, in standard deviations of the saliency.
        lambda_area: weight of mean(m) in ``fsagn``.
        lambda_tv: weight of TV(m) in ``fsagn``.
        contrast: weight of `contrast_loss` in ``budget``; above 0 the filters of one image and step share one area.
        margin: of the contrast, for filters that answer at other places.
    """

    name: ObjectiveName = "budget"
    area_range: tuple[float, float] = (0.03, 0.6)
    tau: tuple[float, float] = (0.2, 0.1)
    lambda_area: float = 1.0
    lambda_tv: float = 0.1
    contrast: float = 1.0
    margin: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.contrast < math.inf:
            raise UsageError(f"contrast must be a number of at least 0, but got {self.contrast}")


def relative_change(masked: Tensor, original: Tensor) -> Tensor:
    """||F_k(x') - F_k(x)|| / ||F_k(x)|| per pair; retention is 1 - min(1, this).

    Args:
        masked: ``(P, h, w)``, F_k(x').
        original: ``(P, h, w)``, F_k(x).

    Returns:
        ``(P,)``, at least 0.
    """
    masked, original = masked.flatten(1).float(), original.flatten(1).float()
    change = (masked - original).square().sum(dim=1).add(1e-12).sqrt()
    return change / original.square().sum(dim=1).sqrt().clamp_min(1e-6)


def crosswise_change(masked: Tensor, original: Tensor) -> Tensor:
    """The relative change of every filter of an image under the mask of every other one.

    Args:
        masked: ``(N, K, K, h, w)``: under the mask of the first filter, the feature map of the second.
        original: ``(N, K, h, w)``.

    Returns:
        ``(N, K, K)``, at least 0; the diagonal is what `relative_change` gives.
    """
    images, asked = masked.shape[:2]
    spread = original[:, None].expand_as(masked)
    return relative_change(masked.flatten(0, 2), spread.flatten(0, 2)).view(images, asked, asked)


def retention(change: Tensor) -> Tensor:
    """R = 1 - min(1, relative change), in [0, 1]."""
    return 1 - change.clamp(max=1.0)


def total_variation(mask: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels times the map's edge length: ``(P, h, w)`` -> ``(P,)``."""
    rows = (mask[:, 1:] - mask[:, :-1]).abs().mean(dim=(1, 2)) * mask.shape[1]
    columns = (mask[:, :, 1:] - mask[:, :, :-1]).abs().mean(dim=(1, 2)) * mask.shape[2]
    return (rows + columns) / 2


def budget_loss(change: Tensor) -> Tensor:
    """Mean of 1 - r over pairs, with the loss clamped at 1.2 instead of 1."""
    return change.clamp(max=LOSS_CLAMP).mean()


def contrast_loss(change: Tensor, original: Tensor, margin: float) -> Tensor:
    """How far masks fall short of telling filters apart: mean of max(0, margin_jk - (r_kk - r_jk)) over j != k.

    r_jk is the retention of filter k under the mask of filter j, at equal area, and margin_jk = margin (1 - cos(F_j,
    F_k)): filters that answer alike need not be told apart. There is no reward beyond the margin: a mask need not
    destroy other filters, which is had by destroying everything.

    Args:
        change: ``(N, K, K)``, see `crosswise_change`.
        original: ``(N, K, h, w)``, the feature maps of the unmasked image.
        margin: by which a filter's own mask is to keep it better than the mask of one that answers elsewhere does.

    Returns:
        A scalar; 0 where K is 1.
    """
    asked = change.shape[1]
    if asked < 2:
        return change.new_zeros(())
    kept = retention(change)
    own = torch.diagonal(kept, dim1=1, dim2=2)[:, None]  # (N, 1, K): of filter k under its own mask
    maps = functional.normalize(original.detach().flatten(2).float(), dim=2)
    margins = margin * (1 - maps @ maps.transpose(1, 2))
    short = (margins - (own - kept)).clamp_min(0)
    apart = ~torch.eye(asked, dtype=torch.bool, device=change.device)
    return (short * apart).sum() / (len(change) * asked * (asked - 1))


def fsagn_loss(change: Tensor, mask: Tensor, objective: Objective) -> Tensor:
    """Mean of d(F_k(x'), F_k(x)) + lambda_area mean(m) + lambda_tv TV(m), d the squared relative change.

    Source: Qian, Qiao and Xu, ICONIP 2018; where the abstract is silent, the project's method page.
    """
    return change.square().clamp(max=LOSS_CLAMP).mean() + area_penalty(mask, objective)


def area_penalty(mask: Tensor, objective: Objective) -> Tensor:
    """Mean of lambda_area mean(m) + lambda_tv TV(m) over masks ``(P, H, W)``."""
    return (objective.lambda_area * mask.mean(dim=(1, 2)) + objective.lambda_tv * total_variation(mask)).mean()


def interpolate_retention(predicted: Tensor, areas: Tensor, area: Tensor) -> Tensor:
    """Predicted retention at any area, linear between the grid's areas.

    Args:
        predicted: ``(P, A)``.
        areas: ``(A,)`` rising.
        area: ``(P,)``.

    Returns:
        ``(P,)``.
    """
    right = torch.searchsorted(areas, area.contiguous()).clamp(1, len(areas) - 1)
    low, high = areas[right - 1], areas[right]
    share = ((area - low) / (high - low)).clamp(0, 1)
    first = predicted.gather(1, (right - 1)[:, None])[:, 0]
    second = predicted.gather(1, right[:, None])[:, 0]
    return first + share * (second - first)
