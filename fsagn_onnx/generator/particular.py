"""What is particular to a filter: its map beside what the same generator answers for the picture as a whole.

    h_k   the map of filter k, standardised; h that of the picture: own map the sum of all feature maps, embedding and
          alpha the means of all filters'
    d_k   h_k - h, standardised
    first the cells where h_k > .8, by h_k; behind them all others, by h_k + g d_k

So the places that a filter needs most stay as they were learnt, and of the rest those that other filters need come
last. Applied to what is learnt, not while learning: there the difference is learnt back.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from .area import standardise

OWN_ABOVE: Final = 0.8
"""Cells of a standardised map above this are its own, whatever the picture wants: some 15 to 25 % of them."""

NOTHING: Final = 1e-12
"""The normalised feature map where a filter does not fire: too little to count, and sums can be divided by."""

SMALLEST_PEAK: Final = 1e-6
"""Peaks count as so much at least."""


def picture_map(feature_map: Tensor) -> Tensor:
    """The sum of all filters' feature maps over its peak: ``(N, C, fh, fw)`` -> ``(N, 1, fh, fw)`` in (0, 1]."""
    total = feature_map.sum(dim=1, keepdim=True)
    return (total / total.amax(dim=(-2, -1), keepdim=True).clamp_min(SMALLEST_PEAK)).clamp_min(NOTHING)


def told_apart(maps: Tensor, picture: Tensor, weight: float) -> Tensor:
    """Maps with what is particular to them brought out behind their first cells.

    Args:
        maps: ``(N, K, h, w)`` of filters.
        picture: ``(N, 1, h, w)``, of the picture as a whole.
        weight: g, above 0.

    Returns:
        ``(N, K, h, w)``, in the order of the formula above.
    """
    own = standardise(maps)
    particular = standardise(own - standardise(picture))
    later = weight * particular - behind(weight, maps.shape[-2:].numel())
    return own + torch.where(own > OWN_ABOVE, 0.0, later)


def behind(weight: float, cells: int) -> float:
    """By how much the later cells are lowered: no standardised map of so many cells is higher than their root."""
    return weight * math.sqrt(cells)


def voice_of_all(embedding: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """What asks about the picture, ``(hidden,)`` and ``(1,)``: the means of ``(C, hidden)`` and ``(C, 1)``."""
    return embedding.detach().mean(dim=0), alpha.detach().mean(dim=0)
