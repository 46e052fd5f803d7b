"""Percentile bootstrap over images (Efron 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval.

    Attributes:
        mean: of the images' values.
        low: 2.5 % quantile of the resampled means.
        high: 97.5 % quantile.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(values: NDArray[np.floating], seed: int = 0) -> Interval:
    """Mean over images with a 95 % percentile interval from 10,000 resamples.

    Args:
        values: ``(n,)`` one value per image, n >= 1; NaN (an image without a living filter) is left out.
        seed: of the resampling.

    Returns:
        The interval; NaN throughout when no value is left.
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if not kept.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [kept[rng.integers(kept.size, size=(100, kept.size))].mean(axis=1) for _ in range(RESAMPLES // 100)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(kept.mean()), float(low), float(high))
