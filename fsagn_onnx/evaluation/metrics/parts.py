"""Masks against part annotations: pointing game, part IoU, location instability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.masks import COMMON_CELL, Mask, upsample
from ...statistics.bootstrap import Counts, bootstrap, bootstrap_ratio
from ...statistics.instability import instability
from ..image_masks import ImageMasks
from .interface import MetricRow
from .intervention import dominant, part_changes
from .per_image import PerImage, array, jsonable
from .registry import metric

LOCATION_AREA: Final = 0.1
"""Area of the mask whose centroid is the filter's place."""

TOLERANCE: Final = 0.03
"""Share of the longer edge by which the pointing game may miss: Zhang et al.'s 15 pixels of about 500.

At least half a cell of the common granularity: a map does not say more exactly where its top is."""

DETECTOR: Final = 0.04
"""IoU over a data set from which a filter counts as a part's detector (Bau et al. 2017)."""

PART_IOU: Final = 0.2
"""IoU in one image from which a part counts as found (Zhang, Wu and Zhu 2018, section 5.2.1)."""

FEWEST: Final = 5
"""Images in which a (filter, part) must be seen together before its instability means something."""

PEAK: Final = "activation peak"
"""Stands among the methods in the rows of location instability."""


def top_pixel(saliency: NDArray[np.floating], size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the largest value of a map brought to the input's size; the first of equals."""
    place = int(np.argmax(upsample(saliency, size)))
    return divmod(place, size[1])


def hits(point: tuple[int, int], part: Mask) -> bool:
    """Whether a point lies in a part or misses it by at most `TOLERANCE` of the longer edge, or half a cell."""
    if part[point]:
        return True
    distance = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return bool(distance[point] <= max(TOLERANCE * max(part.shape), COMMON_CELL / 2))


def centroid(mask: Mask) -> NDArray[np.float64]:
    """(row, column) of a mask's centre, in units of the image's diagonal."""
    rows, columns = np.nonzero(mask)
    return np.asarray(np.array([rows.mean(), columns.mean()]) / np.hypot(*mask.shape))


@metric(60)
class PartMetrics:
    """How masks and annotated parts agree.

    The target of an (image, filter) pair is the part whose removal changes F_k most, where one clearly dominates
    (`intervention.dominant`). Masks are cut at the very area of the part, so that 1 can be reached, whatever its size
    (Arras, Osman and Samek 2022, relevance rank accuracy).

    - ``pointing game``: the map's top pixel lies in the target, give or take 3 % of the edge (at least half a cell).
    - ``part IoU``: mean IoU of mask and target; ``part IoU > .2``: the share of pairs above it.
    - ``detectors``: the share of filters whose IoU with their best part, intersections and unions added up over the
      images that show the part, exceeds .04.
    - ``location instability``: the standard deviation over images of the distance between part and mask centroid (at
      area .1), over the diagonal, mean over the (filter, part) seen together in at least five images; also with the
      activation peak in place of the centroid.
    """

    name = "parts"

    def __init__(self) -> None:
        self._values = PerImage()
        self._overlaps: dict[str, dict[tuple[int, str], dict[int, tuple[float, float]]]] = {}
        self._distances: dict[str, dict[tuple[int, str], dict[int, float]]] = {}

    def measure(self, view: ImageMasks) -> Any:
        """Ids, parts, target per filter, and by method hits, overlaps and centroids; None without annotation."""
        if view.annotation is None:
            return None
        parts = view.annotation.parts
        names = list(parts)
        targets = [dominant(row) for row in part_changes(view)]
        methods = {}
        for method in view.saliency:
            overlaps = np.array(
                [[self._overlap(view, method, k, parts[p]) for p in names] for k in range(len(view.ids))]
            )
            points = [top_pixel(-view.rank(method)[k], view.size) for k in range(len(view.ids))]
            methods[method] = {
                "hit": [None if t is None else hits(points[k], parts[names[t]]) for k, t in enumerate(targets)],
                "overlap": jsonable(overlaps),
                "centroid": jsonable(
                    np.array([centroid(view.mask(method, k, LOCATION_AREA)) for k in range(len(view.ids))])
                ),
            }
        peaks = np.array([top_pixel(whole, view.size) for whole in view.whole]) / np.hypot(*view.size)
        return {
            "ids": view.ids.tolist(),
            "parts": names,
            "targets": targets,
            "places": jsonable(np.array([centroid(parts[p]) for p in names])),
            "peaks": jsonable(peaks),
            "methods": methods,
        }

    @staticmethod
    def _overlap(view: ImageMasks, method: str, filter: int, part: Mask) -> tuple[float, float]:
        """Pixels of intersection and union of a part and the mask of its area."""
        mask = view.mask(method, filter, float(part.mean()))
        return float((mask & part).sum()), float((mask | part).sum())

    def update(self, measured: Mapping[str, Any] | None) -> None:
        """Add what `measure` gave."""
        self._values.start()
        if measured is None:
            return
        targets, places = measured["targets"], array(measured["places"])
        keys = [[(k, part) for part in measured["parts"]] for k in measured["ids"]]
        for method, figures in measured["methods"].items():
            overlaps = array(figures["overlap"])  # (K, P, 2)
            ratio = overlaps[..., 0] / overlaps[..., 1]
            found = np.array([ratio[k, t] for k, t in enumerate(targets) if t is not None])
            hit = np.array([float(value) for value in figures["hit"] if value is not None])
            self._values.add(method, "pointing game", float(hit.sum()))
            self._values.add(method, "part IoU", float(found.sum()))
            self._values.add(method, "part IoU > .2", float((found > PART_IOU).sum()))
            self._values.add(method, "pairs", len(hit))
            for k, row in enumerate(keys):
                for p, key in enumerate(row):
                    overlap = (float(overlaps[k, p, 0]), float(overlaps[k, p, 1]))
                    self._overlaps.setdefault(method, {}).setdefault(key, {})[self._values.images - 1] = overlap
            self._place(method, keys, array(figures["centroid"]), places)
        self._place(PEAK, keys, array(measured["peaks"]), places)

    def _place(
        self, method: str, keys: list[list[tuple[int, str]]], centres: NDArray[np.float64], places: NDArray[np.float64]
    ) -> None:
        apart = np.linalg.norm(centres[:, None] - places[None], axis=2)  # (K, P)
        for k, row in enumerate(keys):
            for p, key in enumerate(row):
                self._distances.setdefault(method, {}).setdefault(key, {})[self._values.images - 1] = float(apart[k, p])

    def compute(self) -> Sequence[MetricRow]:
        """All rows; none where no image had an annotation."""
        rows = []
        for title in ("pointing game", "part IoU", "part IoU > .2"):
            for method in self._values.methods(title):
                pairs = self._values.of(method, "pairs")
                value = bootstrap_ratio(self._values.of(method, title), pairs)
                rows.append(MetricRow(title, method, None, value, int(np.nansum(pairs)), "pairs"))
        rows += [self._detectors(method, overlaps) for method, overlaps in self._overlaps.items()]
        return rows + [row for method, found in self._distances.items() for row in self._instability(method, found)]

    def _detectors(
        self, method: str, overlaps: Mapping[tuple[int, str], Mapping[int, tuple[float, float]]]
    ) -> MetricRow:
        filters = sorted({k for k, _ in overlaps})
        pairs = sorted(overlaps)
        both = np.zeros((2, self._values.images, len(pairs)))
        for column, key in enumerate(pairs):
            for image, overlap in overlaps[key].items():
                both[:, image, column] = overlap
        owner = np.array([filters.index(k) for k, _ in pairs])

        def share(counts: Counts) -> NDArray[np.float64]:
            above, below = counts @ both[0], counts @ both[1]
            ratio = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
            best = np.stack([ratio[:, owner == f].max(axis=1) for f in range(len(filters))], axis=1)
            seen = np.stack([below[:, owner == f].any(axis=1) for f in range(len(filters))], axis=1)
            return np.asarray(((best > DETECTOR) & seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1))

        return MetricRow("detectors", method, None, bootstrap(self._values.images, share), len(filters), "filters")

    def _instability(self, method: str, found: Mapping[tuple[int, str], Mapping[int, float]]) -> list[MetricRow]:
        pairs = [key for key in sorted(found) if len(found[key]) >= FEWEST]
        if not pairs:
            return []
        apart = np.zeros((self._values.images, len(pairs)))
        seen = np.zeros_like(apart)
        for column, key in enumerate(pairs):
            for image, distance in found[key].items():
                apart[image, column], seen[image, column] = distance, 1
        value = bootstrap(self._values.images, lambda counts: instability(counts, apart, seen), centred=True)
        return [MetricRow("location instability", method, None, value, len(pairs), "(filter, part)")]
