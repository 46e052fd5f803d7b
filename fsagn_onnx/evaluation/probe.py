"""The part of the model up to the explained layer, run on masked images in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from ..runtime.feature_maps import BATCH_SIZE, FeatureMaps, Maps
from ..runtime.infill import Pixels, masked_images
from ..runtime.masks import Mask


class Probe:
    """Feature maps of the explained layer, for whole and for masked images.

    Attributes:
        forwards: images that went through the model so far.

    Args:
        model: the CNN.
        layer: value name of the explained layer.
        providers: see `Session`.
        threads: see `Session`.
        batch_size: images per pass.
    """

    def __init__(
        self,
        model: Model,
        layer: str,
        *,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._maps = FeatureMaps.of_model(model, layer, providers, threads, batch_size=batch_size)
        self.forwards = 0

    def features(self, pixels: Pixels, filters: NDArray[np.int64] | None = None) -> Maps:
        """Feature maps of fitted pixels.

        Args:
            pixels: ``(N, H, W, c)``.
            filters: ``(K,)`` ids; None: all.

        Returns:
            ``(N, K, h, w)``.
        """
        self.forwards += len(pixels)
        return self._maps.of_pixels(pixels, filters)

    def masked(self, pixels: Pixels, masks: Sequence[Mask], infill: str | Pixels, filters: NDArray[np.int64]) -> Maps:
        """Feature maps of x' = m x + (1 - m) b.

        Args:
            pixels: ``(H, W, c)``, x.
            masks: M of ``(H, W)``, True = kept.
            infill: a kind, or the picture b itself.
            filters: ``(K,)`` ids.

        Returns:
            ``(M, K, h, w)``.
        """
        return self.features(masked_images(pixels, masks, infill), filters)

    def close(self) -> None:
        """Free the session."""
        self._maps.close()


def response(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum of a feature map's positive values over the last two axes (all of them behind a ReLU)."""
    return np.asarray(np.maximum(maps.astype(np.float64), 0).sum(axis=(-2, -1)))
