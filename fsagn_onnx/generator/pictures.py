"""Where a step's pictures, infills, filters and cut masks come from: the host, or the device that trains.

On the host each picture is cropped and filled by OpenCV, as `explain` and `evaluate` do it. A fast device would wait
for that, so there all pictures lie in its memory and a few tensor operations make those of a whole step. Both draw from
the same distributions; what is drawn depends on the given numpy generator alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model import InputSpec
from ..runtime.infill import VERIFY
from ..runtime.masks import pixel_mask
from .batches import Crops, ImagePool, draw_batch
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


class StrongFilters(NamedTuple):
    """The filters of some images by peak, and how many of them answer; weak ones would dominate the gradient.

    Attributes:
        feature_map: ``(n, C, h, w)`` of the images.
        order: ``(n, C)`` int64, the strongest first.
        alive: of every image of the step, those of all workers: how many to draw among.
        rows: which of them these are.
    """

    feature_map: Tensor
    order: Tensor
    alive: list[int]
    rows: Rows

    @classmethod
    def of(cls, feature_map: Tensor, active: int, rows: Rows, share: Share = ALONE) -> StrongFilters:
        """Of some images; ``active`` filters at most."""
        peaks = feature_map.amax(dim=(-2, -1))
        values, order = torch.sort(peaks, dim=1, descending=True, stable=True)
        (alive,) = share.gather(rows, (values > 0).sum(dim=1).clamp(1, active))
        return cls(feature_map, order, alive.tolist(), rows)

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """``(n, K)`` int64; without repetition where at least K filters of the image are active."""
        drawn = [rng.choice(among, size=count, replace=among < count) for among in self.alive]
        places = torch.from_numpy(np.stack(drawn[self.rows.own])).to(self.order.device)
        return self.order.gather(1, places).cpu()


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
        self._strong: StrongFilters | None = None

    def draw(
        self, size: Size, count: int, options: TrainingOptions, rng: np.random.Generator
    ) -> tuple[Crops, list[int]]:
        """See `Pictures`; crops are made as they are asked for: those of other workers hardly ever are."""
        return draw_batch(self._pool, self._spec, size, count, options, rng)

    def normalise(self, pixels: Any) -> Tensor:
        """See `Pictures`."""
        return torch.from_numpy(self._spec.normalise(pixels[:])).to(self._device)

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
        """See `Pictures`; what is known of a feature map is kept for the next step, which asks about it again."""
        if self._strong is None or self._strong.feature_map is not feature_map:
            self._strong = StrongFilters.of(feature_map, active, rows or ALONE.rows(len(feature_map)), self._share)
        return self._strong.draw(count, rng).to(self._device)

    def cut(self, rank: Tensor, areas: Tensor, size: Size) -> Tensor:
        """See `Pictures`."""
        rows = zip(rank.cpu().numpy(), areas.tolist(), strict=True)
        cut = np.stack([pixel_mask(single, area, size) for single, area in rows])
        return torch.from_numpy(cut.astype(np.float32)).to(self._device)
