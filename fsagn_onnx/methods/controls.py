"""`random` and `centre`: what a mask is worth that knows nothing of the picture. Rows that every table needs."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from ..runtime.masks import common_grid
from .interface import Passes

METHODS: Final = {"random": "make_random", "centre": "make_centre"}


class Random:
    """Independent noise on a grid, the same for the same image, filter and seed.

    Args:
        grid: ``(h, w)`` cells.
        seed: of the noise.
    """

    name = "random"

    def __init__(self, grid: tuple[int, int], seed: int = 0) -> None:
        self._grid, self._seed = grid, seed

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`."""
        maps = np.empty((*filters.shape, *self._grid), dtype=np.float32)
        for image, ids, row in zip(batch, filters, maps, strict=True):
            content = zlib.crc32(np.ascontiguousarray(image).tobytes())
            for place, filter in enumerate(ids.tolist()):
                row[place] = np.random.default_rng([self._seed, content, filter]).random(self._grid, dtype=np.float32)
        return maps

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(0, 0)


class Centre:
    """Closeness to the centre of the picture, whatever is in it.

    Args:
        grid: ``(h, w)`` cells.
    """

    name = "centre"

    def __init__(self, grid: tuple[int, int]) -> None:
        rows, columns = (np.abs((np.arange(count) + 0.5) / count - 0.5) for count in grid)
        self._map = -np.hypot(rows[:, None], columns[None]).astype(np.float32)

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`."""
        return np.broadcast_to(self._map, (*filters.shape, *self._map.shape)).copy()

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(0, 0)


def make_random(model: Model, layer: str) -> Random:
    """Noise at the common granularity."""
    return Random(common_grid(model.input_spec.size))


def make_centre(model: Model, layer: str) -> Centre:
    """Closeness to the centre at the common granularity."""
    return Centre(common_grid(model.input_spec.size))
