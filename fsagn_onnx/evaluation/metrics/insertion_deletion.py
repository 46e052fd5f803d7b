"""Filter insertion and deletion AUC: RISE's curves with the filter's own response in place of a class score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...statistics.bootstrap import bootstrap_mean
from ..image_masks import ImageMasks
from .interface import MetricRow
from .per_image import PerImage, array, jsonable, mean_of_known
from .registry import metric


@metric(20, lambda kind, setting: kind(setting.areas))
class InsertionDeletion:
    """Area under y(a) = sum F_k(x') / sum F_k(x), pixels added (insertion) or removed (deletion) by rank.

    The curve is taken at a = 0, the areas of the AUC, and 1, under the first infill, and integrated by trapezoids.
    Insertion starts at the infill alone and ends at 1; deletion runs the other way, so less is better there. Of maps
    with negative values the positive part counts. Source: Petsiuk, Das and Saenko, BMVC 2018, section 3.2.

    Args:
        areas: at which the curves are taken, between 0 and 1.
    """

    name = "curves"

    def __init__(self, areas: Sequence[float]) -> None:
        self._areas = tuple(areas)
        self._values = PerImage()

    def measure(self, view: ImageMasks) -> Any:
        """``{method: {insertion, deletion: (K, A + 2)}}`` and the infill."""
        infill = view.infills[0]
        nothing = np.zeros(view.size, dtype=np.bool_)
        empty = view.relative_response(view.probe.masked(view.pixels, [nothing], infill, view.ids))[0]  # (K,)
        whole = np.where(np.isnan(empty), np.nan, 1.0)
        curves = {}
        for method in view.saliency:
            added = view.sweep(method, infill).response  # (A, K)
            removed = self._removed(view, method, infill)
            curves[method] = {
                "insertion": jsonable(np.stack([empty, *added, whole], axis=1)),
                "deletion": jsonable(np.stack([whole, *removed, empty], axis=1)),
            }
        return {"infill": infill, "curves": curves}

    @staticmethod
    def _removed(view: ImageMasks, method: str, infill: str) -> NDArray[np.float64]:
        flat = [~mask for row in view.masks(method) for mask in row]
        maps = view.probe.masked(view.pixels, flat, infill, view.ids)
        maps = maps.reshape(len(view.areas), len(view.ids), *maps.shape[1:])
        return view.relative_response(np.einsum("aiihw->aihw", maps))

    def update(self, measured: Mapping[str, Any]) -> None:
        """Add one image's ``{"infill": kind, "curves": {method: {"insertion", "deletion": (K, A + 2)}}}``."""
        self._values.start()
        steps = np.array([0.0, *self._areas, 1.0])
        for method, curves in measured["curves"].items():
            for kind, curve in curves.items():
                under = np.trapezoid(array(curve), steps, axis=1)
                self._values.add(method, f"{kind}|{measured['infill']}", mean_of_known(under))

    def compute(self) -> Sequence[MetricRow]:
        """Insertion and deletion AUC of every method."""
        rows = []
        for kind in ("insertion", "deletion"):
            for method, key in self._values.keys():  # noqa: SIM118
                which, infill = str(key).split("|")
                if which == kind:
                    values = self._values.of(method, key)
                    count = int((~np.isnan(values)).sum())
                    rows.append(MetricRow(f"{kind} AUC", method, infill, bootstrap_mean(values), count))
        return rows
