"""`random`: the row that every table needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Random:
    """Independent noise on the method's grid, the same for the same seed.

    Args:
        grid: ``(h, w)`` cells.
        seed: of the noise.
    """

    name = "random"

    def __init__(self, grid: tuple[int, int], seed: int = 0) -> None:
        self._grid = grid
        self._rng = np.random.default_rng(seed)

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`."""
        return self._rng.random((*filters.shape, *self._grid), dtype=np.float32)
