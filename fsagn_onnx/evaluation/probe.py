"""The part of the model up to the explained layer, run on masked images in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..model import Model, cut
from ..runtime.infill import HELD_OUT, inpaint
from ..runtime.infill import infill as make_infill
from ..runtime.masks import Mask
from ..runtime.session import Session
from ..runtime.verifier import SEED

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

BATCH_SIZE = 25


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
        self._session = Session(cut(model.proto, [layer]), providers, threads)
        self._layer, self._spec = layer, model.input_spec
        self._fixed = self._session.inputs[0].shape[0]
        self._batch_size = self._fixed or batch_size
        self.forwards = 0

    def features(self, pixels: Pixels, filters: NDArray[np.int64] | None = None) -> Maps:
        """Feature maps of fitted pixels.

        Args:
            pixels: ``(N, H, W, c)``.
            filters: ``(K,)`` ids; None: all.

        Returns:
            ``(N, K, h, w)``.
        """
        parts = []
        for start in range(0, len(pixels), self._batch_size):
            batch = pixels[start : start + self._batch_size]
            count = len(batch)
            if self._fixed and count < self._fixed:
                batch = np.concatenate([batch, np.repeat(batch[-1:], self._fixed - count, axis=0)])
            values = np.asarray(self._spec.normalise(batch), dtype=np.float32)
            maps = self._session.run([self._layer], {self._spec.name: values})[self._layer][:count]
            parts.append(
                maps.astype(np.float32, copy=False) if filters is None else maps[:, filters].astype(np.float32)
            )
            self.forwards += count
        return np.concatenate(parts)

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
        self._session.close()


def masked_images(pixels: Pixels, masks: Sequence[Mask], infill: str | Pixels) -> Pixels:
    """X' = m x + (1 - m) b for every mask: ``(M, H, W, c)``; an infill without need of the mask is made once."""
    if isinstance(infill, str) and infill == HELD_OUT:
        return np.stack([np.where(mask[..., None], pixels, inpaint(pixels, mask)) for mask in masks])
    behind = infill
    if isinstance(behind, str):
        behind = make_infill(behind, pixels, np.zeros(pixels.shape[:2], dtype=np.bool_), np.random.default_rng(SEED))
    return np.stack([np.where(mask[..., None], pixels, behind) for mask in masks])


def retained(masked: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.float64]:
    """Retention r = 1 - min(1, ||F' - F|| / ||F||) over the last two axes; NaN where F is zero.

    Args:
        masked: ``(..., h, w)``, F'.
        whole: ``(..., h, w)``, F; broadcast against ``masked``.

    Returns:
        ``(...)`` in [0, 1].
    """
    before = whole.astype(np.float64)
    change = np.sqrt(np.square(masked.astype(np.float64) - before).sum(axis=(-2, -1)))
    norm = np.broadcast_to(np.sqrt(np.square(before).sum(axis=(-2, -1))), change.shape)
    ratio = np.divide(change, norm, out=np.full(change.shape, np.nan), where=norm > 0)
    return np.asarray(1 - np.minimum(1, ratio))


def response(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum of a feature map's positive values over the last two axes (all of them behind a ReLU)."""
    return np.asarray(np.maximum(maps.astype(np.float64), 0).sum(axis=(-2, -1)))
