"""Measured retention: the model itself, run on the masked images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, ModelError
from ..model.input_spec import InputSpec
from .feature_maps import FeatureMaps, retained
from .infill import VERIFY, masked_images
from .masks import Mask
from .stream import Pixels


class Verifier:
    """Measures retention with the part of the model up to the explained layer.

    For filter k and mask m that is `retained` of F_k(x') against F_k(x), with x' = m x + (1 - m) b.

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
            self._maps = FeatureMaps(proto, spec, layer, providers, threads, batch_size=batch_size)
        except ModelError as error:
            raise ExplainerError(f"retention cannot be measured: {error}; give the model") from error
        self._infill = infill_kind

    def measure(self, pixels: Pixels, masks: Sequence[Mask], filters: Sequence[int]) -> NDArray[np.float64]:
        """Retention of filter ``filters[i]`` under ``masks[i]``.

        Args:
            pixels: uint8 (H, W, c), fitted to the model's input.
            masks: bool (H, W) each, True = kept.
            filters: ids, one per mask.

        Returns:
            float64 (M,) in [0, 1]; NaN for a filter that is dead in the image.
        """
        whole = self._maps.of_pixels(pixels[None])[0]  # (C, h, w)
        measured = np.empty(len(masks))
        size = self._maps.batch_size
        for start in range(0, len(masks), size):
            part = slice(start, start + size)
            ids = np.asarray(filters[part], dtype=np.int64)
            maps = self._maps.of_pixels(masked_images(pixels, masks[part], self._infill))
            measured[part] = retained(maps[np.arange(len(ids)), ids], whole[ids])
        return measured

    def close(self) -> None:
        """Free the session."""
        self._maps.close()
