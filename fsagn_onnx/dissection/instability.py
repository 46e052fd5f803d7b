"""Location instability of masks against activation peaks, with an interval over images."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..runs.column_folder import ColumnFolder
from ..statistics.bootstrap import Interval, bootstrap
from ..statistics.instability import instability
from .scores import Floats, centres, distances, row_at
from .significance import spread

MAX_IMAGES: Final = 512
"""Annotated images that the interval is over, evenly spaced over the run: with fewer images it is wider."""


def instability_difference(
    folder: ColumnFolder, limits: Floats, best: NDArray[np.int64], grid: tuple[int, int], seed: int
) -> Interval:
    """How much less the masks of filters move about on their best parts than the activation peaks do.

    Mean over filters of the standard deviation over images of the distance between the part's middle and the mask's
    centroid (in image diagonals), minus the same for the activation peak; a bootstrap over images, because filters
    share images (Zhang, Wu & Zhu 2018, section 5.2.2, for the measure).

    Args:
        folder: the run.
        limits: (K,) peaks from which filters are active.
        best: (K,) number of every filter's best part; -1: none.
        grid: of the masks.
        seed: of the resampling.
    """
    index = folder.index()
    chosen = spread(np.flatnonzero([line["annotated"] for line in index]), MAX_IMAGES)
    apart = np.zeros((2, len(chosen), len(limits)))
    seen = np.zeros((len(chosen), len(limits)))
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    middles = np.stack([(columns + 0.5) / grid[1], (rows + 0.5) / grid[0]], axis=1)
    for n, number in enumerate(chosen.tolist()):
        row = row_at(folder, number, grid[0] * grid[1])
        if row.parts is None:
            continue
        place = np.full(int(max(best.max(), row.parts.ids.max())) + 1, -1)
        place[row.parts.ids] = np.arange(len(row.parts.ids))
        at = np.where(best >= 0, place[best], -1)
        lit = np.flatnonzero((row.peaks >= limits) & (at >= 0))
        if lit.size:
            kept = row.masks[lit].astype(np.float64)
            centroids = (kept @ middles) / np.maximum(kept.sum(axis=1), 1)[:, None]
            found = centres(row, lit, centroids, tuple(index[number]["map"]))
            for side, points in enumerate(found):
                away = distances(points, row.parts.centres)[np.arange(len(lit)), at[lit]]
                apart[side, n, lit] = away / math.hypot(*row.size)
            seen[n, lit] = 1
    return bootstrap(
        len(chosen),
        lambda counts: instability(counts, apart[0], seen) - instability(counts, apart[1], seen),
        seed,
        centred=True,
    )
