"""From one engine pass to explanations: predictions, areas, retention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..model.geometry import Geometry
from .area import DEFAULT_AREA, retention_at, sufficient_area
from .classes import Classes
from .contract import AGAINST, AREA_RANK, DECISION_RESULTS, DECISIVE, FILTER_PEAKS, RETENTION
from .detections import find_detections
from .engine import Decisions, EngineMetadata, Pass
from .explained_area import DirectionArea, Evidence
from .explanation import Explanation, FilterExplanation, locate
from .filter_request import FilterRequest
from .intervention import DecisionMeter
from .masks import pixel_mask
from .segments import find_segmentation
from .stream import Pixels, Prepared
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
        about: classes asked about, -1 for the highest score not asked for by id.
        directions: asked about, float32 (D, C), or None.
        meter: measures what decisions rest on, or None.
    """

    metadata: EngineMetadata
    classes: Classes
    request: FilterRequest
    area: float | None
    verifier: Verifier | None
    about: tuple[int, ...] = ()
    directions: NDArray[np.float32] | None = None
    meter: DecisionMeter | None = None

    def explanation(self, image: Prepared, computed: Pass, n: int) -> Explanation:
        """The explanation of image ``n`` of a pass whose outputs are finite."""
        slots = self._shown_slots(computed, n)
        ids = [int(k) for k in computed.filter_ids[n, slots]]
        ranks = computed.area_rank[n, slots]  # (K, h, w)
        curves = None if computed.retention is None else computed.retention[n, slots]  # (K, A)
        areas, measured = self._areas(image, ids, ranks, curves)
        filters = []
        for i, (k, area) in enumerate(zip(ids, areas, strict=True)):
            contribution, share = contribution_of(computed.decisions, n, slots[i])
            filters.append(
                FilterExplanation(
                    id=k,
                    peak=float(computed.filter_peaks[n, slots[i]]),
                    contribution=contribution,
                    share=share,
                    retention_measured=measured[i],
                    **self._cut(image.geometry, ranks[i], area, None if curves is None else curves[i]),
                )
            )
        return Explanation(
            name=image.name,
            path=image.path,
            size=image.geometry.original,
            geometry=image.geometry,
            predictions=self.classes.predictions(computed.outputs, n),
            filters=tuple(filters),
            evidence=self.evidence(image.geometry, computed, n, image.pixels),
            directions=self._directions(image, computed, n),
            preview=image.preview,
            heads=self.classes.heads(computed.outputs, n),
            detections=find_detections(self.classes, computed.outputs, n, image.geometry),
            segmentation=find_segmentation(self.classes, computed.outputs, n, image.geometry),
        )

    def _cut(
        self, geometry: Geometry, rank: NDArray[np.float32], area: float, values: NDArray[np.float32] | None
    ) -> dict[str, Any]:
        """What every `Area` says, but for what is measured."""
        curve = () if values is None else tuple(zip(self.metadata.areas, map(float, values), strict=True))
        box, centroid = locate(pixel_mask(rank, area, geometry.size), geometry)
        return {
            "area": area,
            "retention_predicted": retention_at(area, *zip(*curve, strict=True)) if curve else None,
            "area_rank": rank.copy(),
            "curve": curve,
            "box": box,
            "centroid": centroid,
        }

    def _size(self, values: NDArray[np.float32] | None) -> float:
        """The area asked for, else the sufficient one."""
        if self.area is not None:
            return self.area
        return DEFAULT_AREA if values is None else sufficient_area(self.metadata.areas, values.tolist())

    def evidence(
        self, geometry: Geometry, computed: Pass, n: int, pixels: Pixels | None = None
    ) -> tuple[Evidence, ...]:
        """What the decisions asked about rest on in image ``n`` of a pass.

        Args:
            geometry: of the image.
            computed: the pass.
            n: the image's place in it.
            pixels: fitted to the model's input, uint8 (H, W, c), where the meter is to measure.
        """
        found = computed.decisions
        if found is None:
            return ()
        own = {name: computed.outputs[name][n : n + 1] for name in self.classes.wanted if name in computed.outputs}
        scores = self.classes.probabilities(own)
        evidence = []
        for j, number in enumerate(found.class_ids[n].tolist()):
            values = None if found.evidence_retention is None else found.evidence_retention[n, j]
            one = Evidence(
                index=number,
                label=self.classes.label(number, None if scores is None else scores.shape[1]),
                score=float("nan") if scores is None else float(scores[0, number]),
                decision=float(found.decision[n, j]),
                support=(float(found.support[n, j, 0]), float(found.support[n, j, 1])),
                retention_measured=None,
                **self._cut(geometry, found.evidence_rank[n, j], self._size(values), values),
            )
            if self.meter is not None and pixels is not None:
                one = self.meter.measured(pixels, one, geometry, self.area)
            evidence.append(one)
        return tuple(evidence)

    def _directions(self, image: Prepared, computed: Pass, n: int) -> tuple[DirectionArea, ...]:
        found = computed.directions
        if found is None:
            return ()
        areas = []
        for place in range(found.area_rank.shape[1]):
            values = None if found.retention is None else found.retention[n, place]
            areas.append(
                DirectionArea(
                    index=place,
                    activation=float(found.activation[n, place]),
                    retention_measured=None,
                    **self._cut(image.geometry, found.area_rank[n, place], self._size(values), values),
                )
            )
        return tuple(areas)

    def _shown_slots(self, computed: Pass, n: int) -> NDArray[np.intp]:
        """The filled slots; of those that each image fills, no filter that is not active, adds nothing, or came before.

        A decisive one must speak for the class, one against it against it.
        """
        slots, ids = np.asarray(self.request.slots), computed.filter_ids[n]
        wanted = (slots >= 0) | (computed.filter_peaks[n] > 0)
        if computed.decisions is not None:
            phi = computed.decisions.contributions[n, 0]
            wanted &= (slots != DECISIVE) | (phi > 0)
            wanted &= (slots != AGAINST) | (phi < 0)
        first = np.zeros(len(ids), dtype=bool)
        first[np.unique(ids, return_index=True)[1]] = True
        return np.flatnonzero(wanted & first & (ids != FILL))

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


def contribution_of(found: Decisions | None, n: int, slot: int, asked: int = 0) -> tuple[float | None, float | None]:
    """What a filter adds to a class that is asked about, and its share of what speaks for the class, or against it."""
    if found is None:
        return None, None
    contribution = float(found.contributions[n, asked, slot])
    total = float(found.support[n, asked, 0 if contribution >= 0 else 1])
    return contribution, min(1.0, contribution / total) if total else 0.0


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
    found += [name for name, values in own.items() if not np.isfinite(values[n, slots]).all()]
    if (decided := computed.decisions) is not None:
        found += [name for name in DECISION_RESULTS[1:5] if not np.isfinite(getattr(decided, name)[n]).all()]
    return found
