"""One image as the metrics see it: filters, masks of every method, and what the model makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.feature_maps import retained
from ..runtime.infill import Pixels
from ..runtime.masks import AUC_AREAS, Mask, area_rank, pixel_mask, to_common_granularity
from .decision_view import DecisionView
from .part_masks import Annotation
from .probe import Probe, response

AREAS = AUC_AREAS


class Sweep(NamedTuple):
    """What the model makes of one method's masks under one infill.

    Attributes:
        retention: ``(A, K, K)``: at area a, under the mask of the first filter, r of the second.
        response: ``(A, K)``: y = sum F_k(x') / sum F_k(x) under the filter's own mask.
    """

    retention: NDArray[np.float64]
    response: NDArray[np.float64]


class Predicted(NamedTuple):
    """What an explainer file predicts for one image.

    Attributes:
        areas: the grid of areas, A of them.
        retention: ``(K, A)``.
        area_rank: ``(K, h, w)`` on the explainer's own grid, as it gives it.
        infills: those of its training.
        random: what a random area of each size keeps, where the file knows.
    """

    areas: tuple[float, ...]
    retention: NDArray[np.float32]
    area_rank: NDArray[np.float32]
    infills: tuple[str, ...]
    random: tuple[float, ...] | None = None


@dataclass(eq=False)
class ImageMasks:
    """An image that is being measured.

    Attributes:
        probe: runs the model.
        path: the image file.
        pixels: ``(H, W, c)`` fitted to the model's input.
        ids: ``(K,)`` the filters.
        whole: ``(K, h, w)`` their feature maps.
        saliency: by method, ``(K, h', w')`` at any resolution.
        infills: kinds of infill; the first is the one that costly metrics use.
        areas: at which masks are cut.
        other: pixels of another image of the run, or None.
        annotation: parts of the object, or None.
        predicted: what explainer files predict, by method.
        decision: evidence for the model's own answer, where it is measured.
    """

    probe: Probe
    path: Path
    pixels: Pixels
    ids: NDArray[np.int64]
    whole: NDArray[np.float32]
    saliency: Mapping[str, NDArray[np.float32]]
    infills: Sequence[str]
    areas: Sequence[float] = AREAS
    other: Pixels | None = None
    annotation: Annotation | None = None
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    decision: DecisionView | None = None

    def __post_init__(self) -> None:
        self.changes: NDArray[np.float64] | None = None
        self._ranks: dict[str, NDArray[np.float32]] = {}
        self._masks: dict[str, list[list[Mask]]] = {}
        self._sweeps: dict[tuple[str, str], Sweep] = {}

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the model's input."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rank(self, method: str) -> NDArray[np.float32]:
        """``(K, H/8, W/8)`` area rank at the common granularity."""
        if method not in self._ranks:
            self._ranks[method] = area_rank(to_common_granularity(self.saliency[method], self.size))
        return self._ranks[method]

    def mask(self, method: str, filter: int, area: float) -> Mask:
        """``(H, W)``: the mask of area a of the filter at a place in ``ids``."""
        return pixel_mask(self.rank(method)[filter], area, self.size)

    def masks(self, method: str) -> list[list[Mask]]:
        """The mask of every area of every filter: A lists of K."""
        if method not in self._masks:
            places = range(len(self.ids))
            self._masks[method] = [[self.mask(method, place, area) for place in places] for area in self.areas]
        return self._masks[method]

    def sweep(self, method: str, infill: str) -> Sweep:
        """Run the model on the masks of a method, once per infill."""
        key = (method, infill)
        if key not in self._sweeps:
            flat = [mask for row in self.masks(method) for mask in row]
            maps = self.probe.masked(self.pixels, flat, infill, self.ids)
            maps = maps.reshape(len(self.areas), len(self.ids), *maps.shape[1:])  # (A, K masks, K filters, h, w)
            own = np.einsum("aiihw->aihw", maps)
            self._sweeps[key] = Sweep(retained(maps, self.whole), self.relative_response(own))
        return self._sweeps[key]

    def relative_response(self, maps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Y = sum F_k(x') / sum F_k(x) over positive values: ``(..., K, h, w)`` -> ``(..., K)``; NaN where F_k is 0."""
        whole = response(self.whole)
        after = response(maps)
        alive = np.broadcast_to(whole, after.shape) > 0
        return np.asarray(np.divide(after, whole, out=np.full(after.shape, np.nan), where=alive))
