"""Calibration: predicted against measured retention, and the sufficient area chosen from either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.area import TARGET_RETENTION, retention_at, sufficient_area
from ...runtime.feature_maps import retained
from ...runtime.infill import MASK_FREE, VERIFY
from ...runtime.masks import pixel_mask
from ..image_masks import ImageMasks, Predicted
from .interface import MetricRow
from .per_image import PerImage, array, jsonable, mean_of_known, titled_rows
from .registry import metric

MIX: Final = "training mix"
"""The mean over the infills that the explainer was trained with; r̂ predicts r under `VERIFY` alone."""

OTHER: Final = "other"
"""Another image as infill."""


@metric(50)
class Calibration:
    """Of explainer files: r̂ against r measured on the explainer's own masks, cut as `explain` cuts them.

    - ``|predicted - measured retention|`` and ``predicted - measured retention``: mean over filters and the areas of
      the file, per infill and for the mean over the infills of its training.
    - ``sufficient area, |auto - measured|``: the smallest area that reaches the target by r̂ against that by r.
    - ``retention at the area of --area auto``: measured there under the infill of `--verify`.
    - ``target reached at the area of --area auto``: the share of filters with r at least the target there; filters
      that reach it at none of the areas are left out.
    """

    name = "calibration"

    def __init__(self) -> None:
        self._values = PerImage()

    def measure(self, view: ImageMasks) -> Any:
        """``{method: {"areas", "predicted": (K, A), "measured": {infill: (K, A)}}}``."""
        return {method: self._of(view, predicted) for method, predicted in view.predicted.items()}

    @staticmethod
    def _of(view: ImageMasks, predicted: Predicted) -> dict[str, Any]:
        places, count = range(len(view.ids)), len(predicted.areas)
        masks = [pixel_mask(predicted.area_rank[k], area, view.size) for k in places for area in predicted.areas]
        kinds = [kind for kind in predicted.infills if kind in MASK_FREE or (kind == OTHER and view.other is not None)]
        measured = {}
        for kind in dict.fromkeys((VERIFY, *kinds, *view.infills)):
            behind = view.other if kind == OTHER and view.other is not None else kind
            maps = view.probe.masked(view.pixels, masks, behind, view.ids)
            maps = maps.reshape(len(view.ids), count, *maps.shape[1:])  # (K masks, A, K filters, h, w)
            own = np.stack([maps[k, :, k] for k in places])
            measured[kind] = jsonable(retained(own, view.whole[:, None]))
        return {
            "areas": list(predicted.areas),
            "predicted": jsonable(predicted.retention),
            "measured": measured,
            "trained": kinds,
        }

    def update(self, measured: Mapping[str, Any]) -> None:
        """Add what `measure` gave."""
        self._values.start()
        for method, figures in measured.items():
            predicted = array(figures["predicted"])
            curves = {kind: array(values) for kind, values in figures["measured"].items()}
            if figures["trained"]:
                curves[MIX] = np.mean([curves[kind] for kind in figures["trained"]], axis=0)
            for kind, curve in curves.items():
                self._values.add(method, f"error|{kind}", mean_of_known(np.abs(predicted - curve)))
                self._values.add(method, f"bias|{kind}", mean_of_known(predicted - curve))
            for name, value in _sufficient(figures["areas"], predicted, curves[VERIFY]).items():
                self._values.add(method, f"{name}|{VERIFY}", value)

    def compute(self) -> Sequence[MetricRow]:
        """The rows of every explainer."""
        titles = {
            "error": "|predicted - measured retention|",
            "bias": "predicted - measured retention",
            "area": "sufficient area, |auto - measured|",
            "auto": "retention at the area of --area auto",
            "reached": "target reached at the area of --area auto",
        }
        return titled_rows(self._values, titles)


def _sufficient(
    areas: Sequence[float], predicted: NDArray[np.float64], measured: NDArray[np.float64]
) -> dict[str, float]:
    """Means over the filters of one image, see `Calibration`."""
    apart, kept, reached = [], [], []
    for guess, truth in zip(predicted, measured, strict=True):
        if np.isnan(truth).any():
            continue
        auto = sufficient_area(areas, guess.tolist())
        apart.append(abs(auto - sufficient_area(areas, truth.tolist())))
        kept.append(retention_at(auto, areas, truth.tolist()))
        if truth.max() >= TARGET_RETENTION:
            reached.append(float(kept[-1] >= TARGET_RETENTION))
    return {
        name: mean_of_known(np.array(found))
        for name, found in zip(("area", "auto", "reached"), (apart, kept, reached), strict=True)
    }
