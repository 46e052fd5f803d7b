"""Calibration: predicted against measured retention, and the sufficient area chosen from either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.area import retention_at, sufficient_area
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
    - ``sufficient area, |predicted - measured|``: what `sufficient_area` chooses by r̂ against what it chooses by r;
      0 where it finds none.
    - ``filters with a sufficient area``: the share for which it finds one by r̂.
    - ``retention at the sufficient area`` and ``lead over a random area there``: measured, under the infill of
      `explain --measure`, at the area by r̂, of filters that have one; what random areas keep is the file's own table
      (r_random(a) = a where it has none).
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
            "random": None if predicted.random is None else list(predicted.random),
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
            for name, value in _sufficient(figures["areas"], figures.get("random"), predicted, curves[VERIFY]).items():
                self._values.add(method, f"{name}|{VERIFY}", value)

    def compute(self) -> Sequence[MetricRow]:
        """The rows of every explainer."""
        titles = {
            "error": "|predicted - measured retention|",
            "bias": "predicted - measured retention",
            "area": "sufficient area, |predicted - measured|",
            "found": "filters with a sufficient area",
            "auto": "retention at the sufficient area",
            "lead": "lead over a random area there",
        }
        return titled_rows(self._values, titles)


def _sufficient(
    areas: Sequence[float],
    random: Sequence[float] | None,
    predicted: NDArray[np.float64],
    measured: NDArray[np.float64],
) -> dict[str, float]:
    """Means over the filters of one image, see `Calibration`."""
    found: dict[str, list[float]] = {"area": [], "found": [], "auto": [], "lead": []}
    for guess, truth in zip(predicted, measured, strict=True):
        if np.isnan(truth).any():
            continue
        area = sufficient_area(areas, guess.tolist(), random)
        found["area"].append(abs(area - sufficient_area(areas, truth.tolist(), random)))
        found["found"].append(float(area > 0))
        if area > 0:
            found["auto"].append(retention_at(area, areas, truth.tolist()))
            found["lead"].append(found["auto"][-1] - retention_at(area, areas, areas if random is None else random))
    return {name: mean_of_known(np.array(values)) for name, values in found.items()}
