"""Measured retention: the model itself, run on the masked images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, ModelError
from ..model.input_spec import InputSpec
from .feature_maps import FeatureMaps, retained
from .infill import VERIFY, masked_images
from .masks import FloatMap, Mask, area_rank, common_grid, pixel_mask, to_common_granularity
from .stream import Pixels

SEED: Final = 0
"""Seed of the random areas."""

DRAWS: Final = 3
"""Random areas of every size: one alone may happen to lie where a filter looks."""

MEASURED_AREAS: Final = (0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.5)
"""Areas at which retention is measured to find the sufficient one."""


@dataclass(frozen=True, eq=False)
class MeasuredCurves:
    """Retention of K filters of one image at A areas, float64 (K, A) each; NaN for a filter that is dead.

    Attributes:
        own: under the filters' own areas.
        random: under random areas of the same size and granularity, mean of `DRAWS`.
    """

    own: NDArray[np.float64]
    random: NDArray[np.float64]


@lru_cache(maxsize=8)
def random_masks(size: tuple[int, int], areas: tuple[float, ...]) -> tuple[tuple[Mask, ...], ...]:
    """`DRAWS` random areas of every size, at the common granularity; the same ones for every picture.

    Returns:
        Per draw a mask (H, W) for each of ``areas``, the larger ones around the smaller.
    """
    rng = np.random.default_rng(SEED)
    fields = [rng.random(common_grid(size), dtype=np.float32) for _ in range(DRAWS)]
    ranks = [area_rank(to_common_granularity(field, size)) for field in fields]
    return tuple(tuple(pixel_mask(rank, area, size) for area in areas) for rank in ranks)


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
        ids = list(dict.fromkeys(filters))
        places = [ids.index(k) for k in filters]
        return self._under(pixels, masks, ids)[np.arange(len(masks)), places]

    def curves(
        self, pixels: Pixels, ranks: FloatMap, filters: Sequence[int], areas: tuple[float, ...] = MEASURED_AREAS
    ) -> MeasuredCurves:
        """Retention of the filters' own areas and of random ones.

        Args:
            pixels: uint8 (H, W, c), fitted to the model's input.
            ranks: (K, h, w) area ranks.
            filters: K ids, each once.
            areas: sizes of the areas.
        """
        size, count, kinds = (pixels.shape[0], pixels.shape[1]), len(filters), len(areas)
        cut = [pixel_mask(rank, area, size) for rank in ranks for area in areas]
        cut += [mask for draw in random_masks(size, areas) for mask in draw]
        under = self._under(pixels, cut, filters)
        own = under[: count * kinds].reshape(count, kinds, count)
        return MeasuredCurves(
            own=np.stack([own[k, :, k] for k in range(count)]) if count else np.empty((0, kinds)),
            random=under[count * kinds :].reshape(DRAWS, kinds, count).mean(axis=0).T,
        )

    def _under(self, pixels: Pixels, masks: Sequence[Mask], filters: Sequence[int]) -> NDArray[np.float64]:
        """(M, K): under each mask, r of each filter."""
        ids = np.asarray(filters, dtype=np.int64)
        whole = self._maps.of_pixels(pixels[None], ids)[0]  # (K, h, w)
        size, parts = self._maps.batch_size, [np.empty((0, len(ids)))]
        for start in range(0, len(masks), size):
            pictures = masked_images(pixels, masks[start : start + size], self._infill)
            parts.append(retained(self._maps.of_pixels(pictures, ids), whole))
        return np.concatenate(parts)

    def close(self) -> None:
        """Free the session."""
        self._maps.close()
