"""Location instability: how much a distance varies over images (Zhang, Wu & Zhu 2018, section 5.2.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Counts


def instability(counts: Counts, apart: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over (filter, part) of the standard deviation over images of their distance.

    Args:
        counts: ``(B, n)`` resamples.
        apart: ``(n, P)`` distances, 0 where not seen.
        seen: ``(n, P)`` 1 where the filter was measured and the part is visible, else 0.

    Returns:
        ``(B,)``; pairs that a resample shows in fewer than two images are left out.
    """
    total = counts @ seen
    mean = np.divide(counts @ apart, total, out=np.zeros_like(total), where=total > 0)
    square = np.divide(counts @ np.square(apart), total, out=np.zeros_like(total), where=total > 0)
    deviation = np.sqrt(np.maximum(square - np.square(mean), 0))
    enough = total >= 2
    return np.asarray((deviation * enough).sum(axis=1) / np.maximum(enough.sum(axis=1), 1))
