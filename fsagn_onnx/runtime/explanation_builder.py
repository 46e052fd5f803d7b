"""From one engine pass to explanations: predictions, areas, retention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .area import DEFAULT_AREA, retention_at, sufficient_area
from .classes import Classes
from .contract import AREA_RANK, FILTER_PEAKS, RETENTION
from .detections import find_detections
from .engine import EngineMetadata, Pass
from .explanation import Explanation, FilterExplanation, locate
from .filter_request import FilterRequest
from .masks import pixel_mask
from .segments import find_segmentation
from .stream import Prepared
from .variant import FILL
from .verifier import Verifier

VERIFY_AREAS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Areas at which retention is measured to find the sufficient area, where an engine predicts none."""


@dataclass(frozen=True)
class Answering:
    """How passes become explanations.

    Attributes:
        metadata: of the engine.
        classes: how the model's outputs are read.
        request: the filters asked for.
        area: the area asked for, or None for the sufficient area.
        verifier: measures retention, or None.
    """

    metadata: EngineMetadata
    classes: Classes
    request: FilterRequest
    area: float | None
    verifier: Verifier | None

    def explanation(self, image: Prepared, computed: Pass, n: int) -> Explanation:
        """The explanation of image ``n`` of a pass whose outputs are finite."""
        slots = self._shown_slots(computed, n)
        ids = [int(k) for k in computed.filter_ids[n, slots]]
        ranks = computed.area_rank[n, slots]  # (K, h, w)
        curves = None if computed.retention is None else computed.retention[n, slots]  # (K, A)
        areas, measured = self._areas(image, ids, ranks, curves)
        filters = []
        for i, (k, area) in enumerate(zip(ids, areas, strict=True)):
            curve = () if curves is None else tuple(zip(self.metadata.areas, map(float, curves[i]), strict=True))
            box, centroid = locate(pixel_mask(ranks[i], area, image.geometry.size), image.geometry)
            filters.append(
                FilterExplanation(
                    id=k,
                    peak=float(computed.filter_peaks[n, slots[i]]),
                    area=area,
                    retention_predicted=retention_at(area, *zip(*curve, strict=True)) if curve else None,
                    retention_measured=measured[i],
                    area_rank=ranks[i].copy(),
                    curve=curve,
                    box=box,
                    centroid=centroid,
                )
            )
        return Explanation(
            name=image.name,
            path=image.path,
            size=image.geometry.original,
            geometry=image.geometry,
            predictions=self.classes.predictions(computed.outputs, n),
            filters=tuple(filters),
            preview=image.preview,
            heads=self.classes.heads(computed.outputs, n),
            detections=find_detections(self.classes, computed.outputs, n, image.geometry),
            segmentation=find_segmentation(self.classes, computed.outputs, n, image.geometry),
        )

    def _shown_slots(self, computed: Pass, n: int) -> NDArray[np.intp]:
        """The filled slots, but no filter that is only there to fill and is not active in the image."""
        fill = np.asarray(self.request.slots) == FILL
        wanted = ~fill | (computed.filter_peaks[n] > 0)
        return np.flatnonzero(wanted & (computed.filter_ids[n] != FILL))

    def _areas(
        self, image: Prepared, ids: list[int], ranks: NDArray[np.float32], curves: NDArray[np.float32] | None
    ) -> tuple[list[float], list[float | None]]:
        """The area of every filter, and the retention measured there."""
        if self.area is not None:
            areas = [self.area] * len(ids)
        elif curves is not None and len(self.metadata.areas) > 0:
            areas = [sufficient_area(self.metadata.areas, curve) for curve in curves.tolist()]
        elif self.verifier is not None:
            areas = [self._measured_sufficient_area(self.verifier, image, k, ranks[i]) for i, k in enumerate(ids)]
        else:
            areas = [DEFAULT_AREA] * len(ids)
        if self.verifier is None:
            return areas, [None] * len(ids)
        masks = [pixel_mask(rank, area, image.geometry.size) for rank, area in zip(ranks, areas, strict=True)]
        measured = self.verifier.measure(image.pixels, masks, ids)
        return areas, [float(r) if np.isfinite(r) else None for r in measured]

    @staticmethod
    def _measured_sufficient_area(verifier: Verifier, image: Prepared, k: int, rank: NDArray[np.float32]) -> float:
        masks = [pixel_mask(rank, area, image.geometry.size) for area in VERIFY_AREAS]
        return sufficient_area(VERIFY_AREAS, verifier.measure(image.pixels, masks, [k] * len(masks)).tolist())


def not_finite(computed: Pass, n: int, classes: Classes) -> list[str]:
    """Names of the outputs of image ``n`` that hold a NaN (the explainer's own: an infinity either).

    An output that does not belong to single images says nothing about this one.
    """
    slots = np.flatnonzero(computed.filter_ids[n] != FILL)
    own = {FILTER_PEAKS: computed.filter_peaks, AREA_RANK: computed.area_rank}
    if computed.retention is not None:
        own[RETENTION] = computed.retention
    found = [
        name
        for name, values in computed.outputs.items()
        if np.issubdtype(values.dtype, np.floating) and np.isnan(classes.part(name, values, slice(n, n + 1))).any()
    ]
    return found + [name for name, values in own.items() if not np.isfinite(values[n, slots]).all()]
