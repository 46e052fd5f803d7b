"""Endless random crops of DeepPCB's boards, cut and turned on the device that trains: one gather a batch.

A crop shows one defect or none. Other defects are exchanged for the good board; the ground is the tested board or the
good one; patches of the one are set into the other in good crops too, so that neither the scan's noise nor a seam tells
a defect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .boards import Board, exchange

__all__ = ["GOOD_SHARE", "Crops"]

GOOD_SHARE = 0.4
"""Share of good crops; two thirds of them where a defect was, the others anywhere."""
NEAR_MISSES = 2 / 3
TESTED, GOOD, HEALED = range(3)
TURN = math.radians(8)
ZOOM = 0.15
TURNED = 0.5
"""Share of crops turned by up to `TURN` and scaled by up to exp(`ZOOM`), besides mirrors and quarter turns."""
BLURRED = 0.3
PATCH = (12, 56)
"""Edges of the patches that are set into good crops."""


class Crops:
    """Draws batches.

    Args:
        boards: what is cut.
        size: edge of a crop.
        offset: pixels by which a defect may lie off the crop's centre.
        device: where the boards lie and crops are cut.
        seed: of all draws.
    """

    def __init__(self, boards: Sequence[Board], size: int, offset: int, device: torch.device, seed: int = 0) -> None:
        layers = [np.stack([board.tested, board.good, exchange(board, board.boxes)]) for board in boards]
        self._pixels = torch.from_numpy(np.stack(layers)).to(device)  # (B, 3, H, W)
        found = [(place, *box) for place, board in enumerate(boards) for box in board.boxes]
        self._defects = torch.tensor(found, dtype=torch.int64, device=device)  # (D, 6): board, box, type
        self._size, self._offset, self._device = size, offset, device
        self._rng = torch.Generator(device=device).manual_seed(seed)
        spread = torch.arange(size, device=device) - (size - 1) / 2
        self._grid = torch.stack(torch.meshgrid(spread, spread, indexing="ij"), dim=-1)  # (size, size, 2)

    def __len__(self) -> int:
        """Defects."""
        return len(self._defects)

    @property
    def rng_state(self) -> Tensor:
        """State of the draws, for a checkpoint."""
        return self._rng.get_state()

    @rng_state.setter
    def rng_state(self, state: Tensor) -> None:
        self._rng.set_state(state)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Random crops and their classes.

        Returns:
            float32 ``(count, size, size)`` in 0..255, and int64 ``(count,)``, 0 for good.
        """
        chosen = torch.randint(len(self._defects), (count,), generator=self._rng, device=self._device)
        rows = self._defects[chosen]
        board, box, kind = rows[:, 0], rows[:, [2, 1, 4, 3]].float(), rows[:, 5] + 1  # top, left, bottom, right
        good = self._uniform(count) < GOOD_SHARE
        centre = (box[:, :2] + box[:, 2:]) / 2
        edges = torch.tensor(self._pixels.shape[-2:], device=self._device)
        anywhere = good & (self._uniform(count) > NEAR_MISSES)
        centre = torch.where(anywhere[:, None], self._uniform(count, 2) * edges, centre)
        patch = self._uniform(count, 2) * (PATCH[1] - PATCH[0]) + PATCH[0]
        middle = centre + (self._uniform(count, 2) - 0.5) * self._size
        box = torch.where(anywhere[:, None], torch.cat([middle - patch / 2, middle + patch / 2], dim=1), box)
        centre = centre + (2 * self._uniform(count, 2) - 1) * self._offset
        margin = self._uniform(count, 1) * 8
        inner = torch.cat([box[:, :2] - margin, box[:, 2:] + margin], dim=1).floor()

        ground = torch.where(self._uniform(count) < 0.5, GOOD, HEALED)
        inside = torch.where(good, GOOD + HEALED - ground, TESTED)
        places = (centre[:, None, None] + self._grid @ self._turns(count)[:, None]).round().long()
        places = torch.minimum(places.clamp_min(0), edges - 1)  # (count, size, size, 2)
        corner = inner[:, None, None]
        own = ((places >= corner[..., :2]) & (places < corner[..., 2:])).all(dim=-1)
        layer = torch.where(own, inside[:, None, None], ground[:, None, None])
        crops = self._pixels[board[:, None, None], layer, places[..., 0], places[..., 1]].float()
        return self._soften(crops), torch.where(good, 0, kind)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._rng, device=self._device)

    def _turns(self, count: int) -> Tensor:
        """Quarter turns, mirrors, and for some a small turn and scale: ``(count, 2, 2)``."""
        quarter = torch.floor(self._uniform(count) * 4) * (math.pi / 2)
        some = (self._uniform(count) < TURNED).float()
        angle = quarter + some * TURN * (2 * self._uniform(count) - 1)
        zoom = torch.exp(some * ZOOM * (2 * self._uniform(count) - 1))
        mirror = torch.where(self._uniform(count) < 0.5, 1.0, -1.0)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        return torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin * mirror, cos * mirror], -1)], dim=1)

    def _soften(self, crops: Tensor) -> Tensor:
        """A light blur of some crops, as a grey scan has at its edges."""
        sigma = 0.3 + 0.9 * self._uniform(1)
        taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=self._device) / sigma) ** 2)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        some = int(BLURRED * len(crops))  # crops are drawn independently: the first are as good as any
        padded = torch.nn.functional.pad(crops[:some, None], (2, 2, 2, 2), mode="replicate")
        crops[:some] = torch.nn.functional.conv2d(padded, kernel[None, None])[:, 0]
        return crops
