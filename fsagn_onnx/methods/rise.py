"""`rise`: random masks weighted by what they leave of each filter (Petsiuk, Das and Saenko, BMVC 2018), per filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..model import InputSpec, Model
from ..runtime.feature_maps import FeatureMaps
from ..runtime.infill import MASK_FREE
from .interface import Passes

METHODS: Final = {"rise": "Rise"}

CELLS: Final = 7
"""Cells of the coarse masks along each side, before they are upsampled and shifted (RISE: 7 at 224 pixels)."""

KEPT: Final = 0.5
"""Probability that a cell is kept."""

BATCH: Final = 25


def rise_masks(count: int, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """RISE's masks: coarse Bernoulli grids, upsampled bilinearly, cut out at a random shift of up to one cell.

    Returns:
        ``(count, H, W)`` in [0, 1].
    """
    height, width = size
    rows, columns = -(-height // CELLS), -(-width // CELLS)
    masks = np.empty((count, height, width), dtype=np.float32)
    whole = ((CELLS + 1) * columns, (CELLS + 1) * rows)
    for mask in masks:
        coarse = (rng.random((CELLS + 1, CELLS + 1)) < KEPT).astype(np.float32)
        top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
        upsampled = cv2.resize(coarse, whole, interpolation=cv2.INTER_LINEAR)
        mask[:] = upsampled[top : top + height, left : left + width]
    return mask_checked(masks)


def mask_checked(masks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip the rounding of the upsampling away."""
    return np.clip(masks, 0, 1)


class Rise:
    """Saliency of filter k = sum_i y_k(m_i x + (1 - m_i) b) (m_i - KEPT), y_k = the sum of F_k's positive values.

    One set of masked images serves every filter asked for. The infill is the picture's mean colour: RISE's black is
    no neutral value for every network.

    Args:
        model: the CNN.
        layer: value name of the explained layer.
        masks: number of masks.
        seed: of the masks.
        providers: see `Session`.
        threads: see `Session`.
    """

    name = "rise"

    def __init__(
        self,
        model: Model,
        layer: str,
        masks: int = 500,
        seed: int = 0,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        self._spec: InputSpec = model.input_spec
        self._maps = FeatureMaps.of_model(model, layer, providers, threads, batch_size=BATCH)
        self._count = masks
        self._masks = rise_masks(masks, self._spec.size, np.random.default_rng(seed))

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`; the maps have the input's own resolution."""
        return np.stack([self._one(image, ids) for image, ids in zip(batch, filters, strict=True)])

    def _one(self, image: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        pixels = np.clip(np.rint(self._spec.denormalise(image)), 0, 255).astype(np.uint8)
        behind = self._spec.normalise(MASK_FREE["mean"](pixels, np.random.default_rng(0)))
        total = np.zeros((len(ids), *self._spec.size), dtype=np.float32)
        size = self._maps.batch_size
        for start in range(0, self._count, size):
            masks = self._masks[start : start + size]
            spread = masks[:, None] if self._spec.layout == "NCHW" else masks[..., None]
            masked = behind + spread * (image - behind)
            weights = np.maximum(self._maps.maps(masked, ids), 0).sum(axis=(2, 3), dtype=np.float32)  # (masks, K)
            total += np.einsum("mk,mhw->khw", weights, masks - np.float32(KEPT))
        return total / np.float32(self._count)

    def passes(self, filters: int) -> Passes:
        """See `Method`; the number of filters costs nothing."""
        return Passes(self._count, 0)
