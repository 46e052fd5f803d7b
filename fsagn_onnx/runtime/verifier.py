"""Measured retention: the model itself, run on the masked images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, LayerError
from ..model.cut import cut
from ..model.input_spec import InputSpec
from .infill import VERIFY, infill
from .masks import Mask
from .session import Session
from .stream import Pixels

SEED: Final = 0
"""Seed of the infills that are random."""


class Verifier:
    """Measures retention with the part of the model up to the explained layer.

    For filter k and mask m with x' = m x + (1 - m) b: r = 1 - min(1, ‖F_k(x') - F_k(x)‖₂ / ‖F_k(x)‖₂).

    Args:
        proto: a graph that contains the model: the model's own, or that of an explainer with a shared encoder.
        layer: the tapped value.
        spec: the model's input.
        infill_kind: what shows through where the mask is 0, see `infill`.
        providers: see `Session`.
        threads: see `Session`.
        batch_size: masked images per pass.

    Raises:
        ExplainerError: the graph does not compute the layer from the image.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        layer: str,
        spec: InputSpec,
        *,
        infill_kind: str = VERIFY,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        batch_size: int = 8,
    ) -> None:
        try:
            self._session = Session(cut(proto, [layer]), providers, threads)
        except LayerError as error:
            raise ExplainerError(f"retention cannot be measured: {error}; give the model") from error
        names = [port.name for port in self._session.inputs]
        if names != [spec.name]:
            raise ExplainerError(f"'{layer}' needs the inputs {', '.join(names)}, expected only '{spec.name}'")
        self._layer = layer
        self._spec = spec
        self._infill = infill_kind
        self._fixed = self._session.inputs[0].shape[0]
        self._batch_size = self._fixed or batch_size

    def measure(self, pixels: Pixels, masks: Sequence[Mask], filters: Sequence[int]) -> NDArray[np.float64]:
        """Retention of filter ``filters[i]`` under ``masks[i]``.

        Args:
            pixels: uint8 (H, W, c), fitted to the model's input.
            masks: bool (H, W) each, True = kept.
            filters: ids, one per mask.

        Returns:
            float64 (M,) in [0, 1]; NaN for a filter that is dead in the image.
        """
        whole = self._features(pixels[None])[0]  # (C, h, w)
        measured = np.empty(len(masks))
        for start in range(0, len(masks), self._batch_size):
            part = slice(start, start + self._batch_size)
            maps = self._features(np.stack([self._masked(pixels, mask) for mask in masks[part]]))
            for offset, k in enumerate(filters[part]):
                measured[start + offset] = _retention(maps[offset, k], whole[k])
        return measured

    def _masked(self, pixels: Pixels, mask: Mask) -> Pixels:
        behind = infill(self._infill, pixels, mask, np.random.default_rng(SEED))
        return np.where(mask[..., None], pixels, behind)

    def _features(self, pixels: Pixels) -> NDArray[np.float64]:
        """Feature maps (N, C, h, w) of fitted pixels (N, H, W, c)."""
        count = len(pixels)
        if self._fixed and count < self._fixed:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._fixed - count, axis=0)])
        batch = np.asarray(self._spec.normalise(pixels), dtype=np.float32)
        maps = self._session.run([self._layer], {self._spec.name: batch})[self._layer]
        return maps[:count].astype(np.float64)

    def close(self) -> None:
        """Free the session."""
        self._session.close()


def _retention(masked: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(whole))
    if norm == 0:
        return float("nan")
    return 1 - min(1.0, float(np.linalg.norm(masked - whole)) / norm)
