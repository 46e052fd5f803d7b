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
from numpy.typing import NDArray
from torch import Tensor

from ..model import InputSpec
from ..runtime.infill import VERIFY
from ..runtime.masks import pixel_mask
from .batches import ImagePool, draw_batch
from .infill import draw_infills
from .options import TrainingOptions
from .share import ALONE, Rows, Share

Size = tuple[int, int]


class Pictures(Protocol):
    """Draws what a step needs. Pixels are of a kind of its own, ``(B, ...)``; only their number is read outside."""

    def draw(self, size: Size, count: int, options: TrainingOptions, rng: np.random.Generator) -> tuple[Any, list[int]]:
        """Random crops of random pictures, in the model's colour order; and their places in the pool."""

    def normalise(self, pixels: Any) -> Tensor:
        """As the model takes them: float32 in its layout, on the device that trains."""

    def infills(
        self,
        pixels: Any,
        owners: Tensor,
        mix: Mapping[str, float],
        rng: np.random.Generator,
        own: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One normalised infill per pair, and which of them is that of `--verify`: ``(P, ...)``, ``(P,)`` bool.

        Of the pairs with the numbers ``own`` where they are told; what is drawn is the same.
        """

    def filters(
        self, feature_map: Tensor, count: int, active: int, rng: np.random.Generator, rows: Rows | None = None
    ) -> Tensor:
        """K filters of each image among its strongest by peak: ``(n, K)`` int64; the images are ``rows`` of a step."""

    def cut(self, rank: Tensor, areas: Tensor, size: Size) -> Tensor:
        """Masks of exact areas, as `pixel_mask` cuts them: ranks ``(P, h, w)``, areas ``(P,)`` -> ``(P, H, W)``."""


def draw_training_filters(
    feature_map: Tensor,
    count: int,
    active: int,
    rng: np.random.Generator,
    rows: Rows | None = None,
    share: Share = ALONE,
) -> Tensor:
    """Draw filters among the strongest of each image by peak; weak ones would dominate the gradient.

    Args:
        feature_map: ``(N, C, h, w)``.
        count: K filters per image.
        active: how many of the strongest to draw among.
        rng: source of randomness.
        rows: which of a step's images these are; None: all.
        share: of the worker whose images they are.

    Returns:
        ``(N, K)`` int64; without repetition where at least K filters of the image are active.
    """
    peaks = feature_map.amax(dim=(-2, -1))
    values, order = torch.sort(peaks, dim=1, descending=True, stable=True)
    alive = (values > 0).sum(dim=1).clamp(1, active)
    rows = rows or ALONE.rows(len(alive))
    (everyones,) = share.gather(rows, alive)
    places = [rng.choice(among, size=count, replace=among < count) for among in everyones.tolist()][rows.own]
    return order.gather(1, torch.from_numpy(np.stack(places)).to(order.device)).cpu()


class HostPictures:
    """Everything by numpy and OpenCV.

    Args:
        pool: training images.
        spec: the model's input.
        device: that trains.
        share: of the worker that trains.
    """

    def __init__(self, pool: ImagePool, spec: InputSpec, device: torch.device, share: Share = ALONE) -> None:
        self._pool, self._spec, self._device, self._share = pool, spec, device, share

    def draw(
        self, size: Size, count: int, options: TrainingOptions, rng: np.random.Generator
    ) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
        """See `Pictures`; pixels are ``(B, H, W, c)`` uint8."""
        return draw_batch(self._pool, self._spec, size, count, options, rng)

    def normalise(self, pixels: Any) -> Tensor:
        """See `Pictures`."""
        return torch.from_numpy(self._spec.normalise(pixels)).to(self._device)

    def infills(
        self,
        pixels: Any,
        owners: Tensor,
        mix: Mapping[str, float],
        rng: np.random.Generator,
        own: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Pictures`."""
        made, kinds = draw_infills(pixels, owners.tolist(), mix, self._spec, rng, own)
        return made.to(self._device), torch.tensor([kind == VERIFY for kind in kinds], device=self._device)

    def filters(
        self, feature_map: Tensor, count: int, active: int, rng: np.random.Generator, rows: Rows | None = None
    ) -> Tensor:
        """See `Pictures`."""
        return draw_training_filters(feature_map, count, active, rng, rows, self._share).to(self._device)

    def cut(self, rank: Tensor, areas: Tensor, size: Size) -> Tensor:
        """See `Pictures`."""
        rows = zip(rank.cpu().numpy(), areas.tolist(), strict=True)
        cut = np.stack([pixel_mask(single, area, size) for single, area in rows])
        return torch.from_numpy(cut.astype(np.float32)).to(self._device)
