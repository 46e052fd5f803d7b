"""Questions about directions over a layer's channels; a class is asked about by the gradient of its decision.

    gradient x activation  E = sum_k F_k G_k     G = u at every place for a direction u, dd_c/dF for a class
    contribution           phi_k = sum over places of F_k G_k
    own map                max(E, 0)
    weights                w_k = max(phi_k, 0) / sum_k max(phi_k, 0)

A question's embedding and alpha are the filters' in these weights, so that the direction of one filter alone is that
filter where its feature map is not negative, but for what is brought out as particular to the filter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError


class Questions(NamedTuple):
    """J questions about each of N images.

    Attributes:
        maps: ``(N, J, fh, fw)`` own maps at the explained layer, at least 0.
        weights: ``(N, J, C)`` weights of the filters' embeddings.
        contributions: ``(N, J, C)``, phi, of questions about classes, to which what is learnt about decisions is added;
            None for other directions.
    """

    maps: Tensor
    weights: Tensor
    contributions: Tensor | None


def ask(feature_map: Tensor, gradient: Tensor, *, decided: bool) -> Questions:
    """Questions about gradients; see the module for the formulas.

    Args:
        feature_map: ``(N, C, fh, fw)``.
        gradient: ``(N, J, C, fh, fw)``, or ``(N, J, C, 1, 1)`` where it is the same at every place.
        decided: they are about classes.
    """
    product = feature_map[:, None] * gradient
    phi = product.sum(dim=(-2, -1))
    positive = phi.clamp_min(0)
    weights = positive / positive.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return Questions(product.sum(dim=2).clamp_min(0), weights, phi if decided else None)


def ask_directions(feature_map: Tensor, directions: Tensor) -> Questions:
    """Questions about fixed directions.

    Args:
        feature_map: ``(N, C, fh, fw)``.
        directions: ``(J, C)``, the same for every image.

    Raises:
        UsageError: directions of another length, all zero, or not finite.
    """
    count = feature_map.shape[1]
    if directions.ndim != 2 or directions.shape[1] != count:
        raise UsageError(f"directions must be (J, {count}), one number per filter, but are {tuple(directions.shape)}")
    if not bool(torch.isfinite(directions).all()) or not bool((directions != 0).any(dim=1).all()):
        raise UsageError("directions must be finite and not all zero")
    spread = directions[None, :, :, None, None].expand(len(feature_map), -1, -1, -1, -1)
    return ask(feature_map, spread.to(feature_map), decided=False)
