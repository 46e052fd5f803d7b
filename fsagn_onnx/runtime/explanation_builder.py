"""From one engine pass to explanations: predictions, areas, retention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.geometry import Geometry
from .area import DEFAULT_AREA, NO_AREA, SHARE, SHARE_OF_DECISION, AreaWish, retention_at
from .classes import Classes
from .contract import AGAINST, AREA_RANK, DECISION_RESULTS, DECISIVE, FILTER_PEAKS, RETENTION
from .detections import find_detections
from .engine import Decisions, EngineMetadata, Pass
from .explained_area import DirectionArea, Evidence
from .explanation import Explanation, FilterExplanation, locate
from .filter_request import FilterRequest
from .intervention import DecisionMeter, probability
from .masks import pixel_mask
from .segments import find_segmentation
from .stream import Pixels, Prepared
from .variant import FILL
from .verifier import MEASURED_AREAS, Verifier


@dataclass(frozen=True)
class Chosen:
    """The area of a filter or a decision.

    Attributes:
        area: share of the model's input; `NO_AREA` where there is none.
        measured: retention there as measured, or None.
        random: what a random area of that size keeps, or None.
    """

    area: float
    measured: float | None = None
    random: float | None = None


@dataclass(frozen=True)
class Answering:
    """How passes become explanations.

    Attributes:
        metadata: of the engine.
        classes: how the model's outputs are read.
        request: the filters asked for.
        wish: the area asked for.
        verifier: measures retention, or None.
        about: classes asked about, -1 for the highest score not asked for by id.
        directions: asked about, float32 (D, C), or None.
        meter: measures what decisions rest on, or None.
    """

    metadata: EngineMetadata
    classes: Classes
    request: FilterRequest
    wish: AreaWish
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
        peaks = [float(peak) for peak in computed.filter_peaks[n, slots]]
        chosen = self._chosen(image, ids, peaks, ranks, curves)
        filters = []
        for i, (k, one) in enumerate(zip(ids, chosen, strict=True)):
            contribution, share = contribution_of(computed.decisions, n, slots[i])
            filters.append(
                FilterExplanation(
                    id=k,
                    peak=peaks[i],
                    contribution=contribution,
                    share=share,
                    **self._cut(image.geometry, ranks[i], one, None if curves is None else curves[i]),
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
        self, geometry: Geometry, rank: NDArray[np.float32], chosen: Chosen, values: NDArray[np.float32] | None
    ) -> dict[str, Any]:
        """What every `Area` says."""
        curve = () if values is None else tuple(zip(self.metadata.areas, map(float, values), strict=True))
        area, trust = chosen.area, self.metadata.trust
        box, centroid = locate(pixel_mask(rank, area, geometry.size), geometry)
        return {
            "area": area,
            "retention_predicted": retention_at(area, *zip(*curve, strict=True)) if curve and area else None,
            "retention_measured": chosen.measured,
            "retention_random": chosen.random,
            "prediction_error": None if trust is None else trust.error,
            "area_rank": rank.copy(),
            "curve": curve,
            "box": box,
            "centroid": centroid,
        }

    def _predicted(self, values: NDArray[np.float32] | None, *, filters: bool = True, share: float = SHARE) -> Chosen:
        """The area by what is predicted; random areas' retention is known of filters alone."""
        areas, trust = self.metadata.areas, self.metadata.trust
        random = trust.random if trust is not None and filters else None
        if values is None or not areas:
            return Chosen(self.wish.share or DEFAULT_AREA)
        area = self.wish.found(areas, values.tolist(), random, share)
        return Chosen(area, random=retention_at(area, areas, random) if random is not None and area else None)

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
        if found is None or find_detections(self.classes, computed.outputs, n, geometry) == ():
            return ()  # no box, no decision
        own = {name: computed.outputs[name][n : n + 1] for name in self.classes.wanted if name in computed.outputs}
        scores = self.classes.probabilities(own)
        evidence = []
        for j, number in enumerate(found.class_ids[n].tolist()):
            values = None if found.evidence_retention is None else found.evidence_retention[n, j]
            support = (float(found.support[n, j, 0]), float(found.support[n, j, 1]))
            saturated = not any(support)
            predicted = self._predicted(values, filters=False, share=SHARE_OF_DECISION)
            chosen = Chosen(NO_AREA) if saturated else predicted
            one = Evidence(
                index=number,
                label=self.classes.label(number, None if scores is None else scores.shape[1]),
                score=float(probability(found.decision[n, j]) if scores is None else scores[0, number]),
                decision=float(found.decision[n, j]),
                support=support,
                **self._cut(geometry, found.evidence_rank[n, j], chosen, values),
            )
            if self.meter is not None and pixels is not None and not saturated:
                one = self.meter.measured(pixels, one, geometry, self.wish.share)
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
                    **self._cut(
                        image.geometry, found.area_rank[n, place], self._predicted(values, filters=False), values
                    ),
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

    def _chosen(
        self,
        image: Prepared,
        ids: list[int],
        peaks: list[float],
        ranks: NDArray[np.float32],
        curves: NDArray[np.float32] | None,
    ) -> list[Chosen]:
        """The area of every filter, and what is measured there; none for a filter that is not active."""
        live = [i for i, peak in enumerate(peaks) if peak > 0]
        if self.verifier is None:
            found = [self._predicted(None if curves is None else curves[i]) for i in live]
        else:
            found = self._measured(self.verifier, image, [ids[i] for i in live], ranks[live])
        chosen = dict(zip(live, found, strict=True))
        return [chosen.get(i, Chosen(NO_AREA)) for i in range(len(ids))]

    def _measured(
        self, verifier: Verifier, image: Prepared, ids: list[int], ranks: NDArray[np.float32]
    ) -> list[Chosen]:
        """The areas by what is measured, and the retention there."""
        if not ids:
            return []
        if (share := self.wish.share) is not None:
            there = verifier.curves(image.pixels, ranks, ids, (share,))
            return [Chosen(share, *map(_known, pair)) for pair in zip(there.own[:, 0], there.random[:, 0], strict=True)]
        curves = verifier.curves(image.pixels, ranks, ids)
        areas = [
            self.wish.found(MEASURED_AREAS, own.tolist(), random.tolist()) if np.isfinite(own).all() else NO_AREA
            for own, random in zip(curves.own, curves.random, strict=True)
        ]
        masks = [pixel_mask(rank, area, image.geometry.size) for rank, area in zip(ranks, areas, strict=True)]
        kept = verifier.measure(image.pixels, masks, ids)
        return [
            Chosen(area, float(r), retention_at(area, MEASURED_AREAS, random.tolist())) if area else Chosen(NO_AREA)
            for area, r, random in zip(areas, kept, curves.random, strict=True)
        ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


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
