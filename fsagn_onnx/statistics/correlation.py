"""Rank correlation without scipy, which the runtime does not bring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 1, equal values share the mean of theirs: ``(n,)`` -> ``(n,)``."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


def spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's correlation of two series ``(n,)``; NaN where one is constant or they have fewer than two values."""
    if len(first) < 2:
        return float("nan")
    a, b = (ranks - ranks.mean() for ranks in map(mean_ranks, (first, second)))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else float("nan")
