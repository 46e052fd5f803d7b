"""Retention AUC at the common granularity: the mean over areas of r under masks cut at exactly that area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..runtime.masks import area_rank, pixel_mask, to_common_granularity
from ..runtime.verify import Verifier

AREAS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Areas of the AUC."""


class RetentionAUC:
    """Retention AUC = mean over areas {.05 .1 .2 .3 .5} of r, with one infill.

    Every map goes to the common granularity first (cells of 8 input pixels, Gaussian of one cell), whatever its own
    resolution: a fine scatter of pixels keeps much of a picture and would win by that alone.

    Args:
        verifier: runs the model on masked images; fixes the infill.
        size: ``(H, W)`` of the model's input.
        areas: at which masks are cut.
    """

    def __init__(self, verifier: Verifier, size: tuple[int, int], areas: Sequence[float] = AREAS) -> None:
        self._verifier, self._size, self._areas = verifier, size, tuple(areas)
        self._curves: list[NDArray[np.float64]] = []

    def update(
        self, pixels: NDArray[np.uint8], saliency: NDArray[np.float32], filters: Sequence[int]
    ) -> NDArray[np.float64]:
        """Add one image.

        Args:
            pixels: ``(H, W, c)`` fitted to the model's input.
            saliency: ``(K, h, w)`` at any resolution, higher is kept first.
            filters: the K filter ids.

        Returns:
            ``(K,)`` the AUC of each filter; NaN where the filter is dead in the image.
        """
        ranks = area_rank(to_common_granularity(saliency, self._size))
        masks = [pixel_mask(rank, area, self._size) for rank in ranks for area in self._areas]
        repeated = [k for k in filters for _ in self._areas]
        curve = self._verifier.measure(pixels, masks, repeated).reshape(len(filters), len(self._areas))
        self._curves.append(curve)
        return np.asarray(curve.mean(axis=1))

    def compute(self) -> NDArray[np.float64]:
        """``(images,)`` the mean AUC of each image's living filters."""
        with np.errstate(invalid="ignore"):
            return np.array([_mean_of_living(curve.mean(axis=1)) for curve in self._curves])

    def curve(self) -> NDArray[np.float64]:
        """``(areas,)`` mean retention at each area over all living pairs."""
        return np.asarray(np.nanmean(np.concatenate(self._curves), axis=0))


def _mean_of_living(values: NDArray[np.float64]) -> float:
    living = values[~np.isnan(values)]
    return float(living.mean()) if living.size else float("nan")
