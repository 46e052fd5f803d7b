"""Percentile bootstrap over images (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4_000

Counts = NDArray[np.float64]
"""``(B, n)``: how often each of n images is drawn in each of B resamples."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % bootstrap interval.

    Attributes:
        mean: over the images.
        low: 2.5 % quantile over the resamples.
        high: 97.5 % quantile.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
"""The figure of nothing at all."""


def resamples(images: int, seed: int = 0) -> Counts:
    """Draw n of n images with replacement, 4,000 times: ``(4000, n)`` counts, each row adding up to n."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES).astype(np.float64)


def bootstrap(
    images: int, figure: Callable[[Counts], NDArray[np.float64]], seed: int = 0, *, centred: bool = False
) -> Interval:
    """A figure of all images with its 95 % percentile interval.

    Args:
        images: n.
        figure: from counts ``(B, n)`` to the figure of each resample ``(B,)``; NaN where it has none.
        seed: of the resampling.
        centred: move the interval until the resamples' median is the figure: for spreads, which are smaller in a
            resample because it repeats images.

    Returns:
        The interval; NaN throughout where there are no images or the figure of all of them is NaN.
    """
    if not images:
        return UNKNOWN
    whole = float(figure(np.ones((1, images)))[0])
    drawn = figure(resamples(images, seed))
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(whole) or not drawn.size:
        return UNKNOWN
    low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975])
    if centred:
        low, high = low + whole - middle, high + whole - middle
    return Interval(whole, float(low), float(high))


def _known(values: NDArray[np.floating]) -> NDArray[np.float64]:
    kept = np.asarray(values, dtype=np.float64)
    return kept[~np.isnan(kept)]


def bootstrap_mean(values: NDArray[np.floating], seed: int = 0) -> Interval:
    """Mean over images with its interval.

    Args:
        values: ``(n,)`` one value per image; NaN (an image without a living filter) is left out.
        seed: of the resampling.
    """
    kept = _known(values)
    return bootstrap(kept.size, lambda counts: np.asarray(counts @ kept / kept.size), seed)


def bootstrap_ratio(numerator: NDArray[np.floating], denominator: NDArray[np.floating], seed: int = 0) -> Interval:
    """Ratio of two sums over images with its interval, both sums from the same resample.

    Args:
        numerator: ``(n,)``.
        denominator: ``(n,)``; images where either is NaN are left out.
        seed: of the resampling.

    Returns:
        NaN where the denominators add up to 0.
    """
    both = ~(np.isnan(numerator) | np.isnan(denominator))
    above, below = numerator[both].astype(np.float64), denominator[both].astype(np.float64)

    def figure(counts: Counts) -> NDArray[np.float64]:
        total = counts @ below
        return np.asarray(np.divide(counts @ above, total, out=np.full(len(counts), np.nan), where=total != 0))

    return bootstrap(int(both.sum()), figure, seed)
