"""Intervention truth on the synthetic set: the part whose removal changes a filter's feature map most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from ..runtime.feature_maps import FeatureMaps
from .synthetic import PARTS, render

Floats = NDArray[np.float64]

CLEAR: Final = 1.25
"""The truth of a filter is clear where its first part changes it so many times as much as its second."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What removing each part does to each filter.

    Attributes:
        parts: names of the parts, P.
        change: (K, P) Σ ‖F_k(without p) - F_k‖ / Σ ‖F_k‖ over the pictures in which the filter is active.
    """

    parts: tuple[str, ...]
    change: Floats

    @property
    def clear(self) -> NDArray[np.bool_]:
        """(K,) whether one part stands out by the factor `CLEAR`."""
        ranked = np.sort(self.change, axis=1)
        return np.asarray((ranked[:, -1] > 0) & (ranked[:, -1] >= CLEAR * ranked[:, -2]))

    def name(self, k: int) -> str:
        """The part that changes filter k most."""
        return self.parts[int(self.change[k].argmax())]


def intervention_truth(
    model: Model, layer: str, filters: Sequence[int], seeds: Sequence[int], active: NDArray[np.bool_], **session: Any
) -> Truth:
    """Render every picture without each of its parts, and compare feature maps.

    Args:
        model: the network.
        layer: the tapped value.
        filters: ids of the K filters.
        seeds: of the n synthetic pictures.
        active: (n, K), where each filter answers.
        **session: ``providers`` and ``threads``.
    """
    spec, chosen = model.input_spec, list(filters)
    changed, norms = np.zeros((len(chosen), len(PARTS))), np.zeros(len(chosen))
    with FeatureMaps.of_model(model, layer, **session) as network:
        for seed, lit in zip(seeds, active, strict=True):
            pictures = [render(seed).image, *(render(seed, remove=part).image for part in PARTS)]
            batch = np.stack([spec.preprocess(picture)[0] for picture in pictures])
            maps = network.maps(batch, np.array(chosen)).astype(np.float64)
            flat = maps.reshape(len(pictures), len(chosen), -1)
            changed += np.where(lit[:, None], np.linalg.norm(flat[1:] - flat[:1], axis=2).T, 0)
            norms += np.where(lit, np.linalg.norm(flat[0], axis=1), 0)
    return Truth(PARTS, changed / np.maximum(norms, 1e-9)[:, None])
