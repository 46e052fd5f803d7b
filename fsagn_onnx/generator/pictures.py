"""Where a step's pictures, infills, filters and cut masks come from: the host, or the device that trains.

On the host each picture is cropped and filled by OpenCV, as `explain` and `evaluate` do it. A fast device would wait
for that, so there all pictures lie in its memory and a few tensor operations make those of a whole step. Both draw from
the same distributions; what is drawn depends on the given numpy generator alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..model import InputSpec
from ..runtime.infill import VERIFY
from ..runtime.masks import pixel_mask
from .batches import ImagePool, draw_batch
from .infill import draw_infills
from .options import TrainingOptions

Size = tuple[int, int]


class Pictures(Protocol):
    """Draws what a step needs. Pixels are of a kind of its own, ``(B, ...)``; only their number is read outside."""

    def draw(self, size: Size, count: int, options: TrainingOptions, rng: np.random.Generator) -> tuple[Any, list[int]]:
        """Random crops of random pictures, in the model's colour order; and their places in the pool."""

    def normalise(self, pixels: Any) -> Tensor:
        """As the model takes them: float32 in its layout, on the device that trains."""

    def infills(
        self, pixels: Any, owners: Tensor, mix: Mapping[str, float], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """One normalised infill per pair, and which of them is that of `--verify`: ``(P, ...)``, ``(P,)`` bool."""

    def filters(self, feature_map: Tensor, count: int, active: int, rng: np.random.Generator) -> Tensor:
        """K filters of each image among its strongest by peak: ``(N, K)`` int64."""

    def cut(self, rank: Tensor, areas: Tensor, size: Size) -> Tensor:
        """Masks of exact areas, as `pixel_mask` cuts them: ranks ``(P, h, w)``, areas ``(P,)`` -> ``(P, H, W)``."""


def draw_training_filters(feature_map: Tensor, count: int, active: int, rng: np.random.Generator) -> Tensor:
    """Draw filters among the strongest of each image by peak; weak ones would dominate the gradient.

    Args:
        feature_map: ``(N, C, h, w)``.
        count: K filters per image.
        active: how many of the strongest to draw among.
        rng: source of randomness.

    Returns:
        ``(N, K)`` int64; without repetition where at least K filters of the image are active.
    """
    peaks = feature_map.amax(dim=(-2, -1))
    values, order = torch.sort(peaks, dim=1, descending=True, stable=True)
    places = []
    for alive in (values > 0).sum(dim=1).clamp(1, active).tolist():
        places.append(rng.choice(alive, size=count, replace=alive < count))
    return order.gather(1, torch.from_numpy(np.stack(places)).to(order.device)).cpu()


class HostPictures:
    """Everything by numpy and OpenCV.

    Args:
        pool: training images.
        spec: the model's input.
        device: that trains.
    """

    def __init__(self, pool: ImagePool, spec: InputSpec, device: torch.device) -> None:
        self._pool, self._spec, self._device = pool, spec, device

    def draw(
        self, size: Size, count: int, options: TrainingOptions, rng: np.random.Generator
    ) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
        """See `Pictures`; pixels are ``(B, H, W, c)`` uint8."""
        return draw_batch(self._pool, self._spec, size, count, options, rng)

    def normalise(self, pixels: Any) -> Tensor:
        """See `Pictures`."""
        return torch.from_numpy(self._spec.normalise(pixels)).to(self._device)

    def infills(
        self, pixels: Any, owners: Tensor, mix: Mapping[str, float], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """See `Pictures`."""
        made, kinds = draw_infills(pixels, owners.tolist(), mix, self._spec, rng)
        return made.to(self._device), torch.tensor([kind == VERIFY for kind in kinds], device=self._device)

    def filters(self, feature_map: Tensor, count: int, active: int, rng: np.random.Generator) -> Tensor:
        """See `Pictures`."""
        return draw_training_filters(feature_map, count, active, rng).to(self._device)

    def cut(self, rank: Tensor, areas: Tensor, size: Size) -> Tensor:
        """See `Pictures`."""
        rows = zip(rank.cpu().numpy(), areas.tolist(), strict=True)
        cut = np.stack([pixel_mask(single, area, size) for single, area in rows])
        return torch.from_numpy(cut.astype(np.float32)).to(self._device)
