"""Mask-only control: is it the mask's shape or place, rather than the picture under it, that keeps the filter?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...runtime.feature_maps import retained
from ..image_masks import ImageMasks
from .interface import MetricRow
from .per_image import PerImage, array, jsonable, mean_of_known, titled_rows
from .registry import metric


@metric(40)
class MaskOnly:
    """The masks of image x laid over another image y, under the first infill; mean over areas and filters.

    - ``mask on another image``: r of filter k in y, F_k(m y + (1 - m) b) against F_k(y). A mask that keeps as much
      there as at home knows the usual place (the centre), not this picture.
    - ``mask shape alone``: F_k(m y + (1 - m) b) against F_k(x). Above 0 only where the shape of the mask brings forth
      the answer that the filter gave to x.

    To be read beside the retention AUC.
    """

    name = "control"

    def __init__(self) -> None:
        self._values = PerImage()

    def measure(self, view: ImageMasks) -> Any:
        """``{"infill", "applied": {method: (K, A)}, "shape": likewise}``, or None without another image."""
        if view.other is None:
            return None
        infill = view.infills[0]
        there = view.probe.features(view.other[None], view.ids)[0]
        applied, shape = {}, {}
        for method in view.saliency:
            flat = [mask for row in view.masks(method) for mask in row]
            maps = view.probe.masked(view.other, flat, infill, view.ids)
            maps = maps.reshape(len(view.areas), len(view.ids), *maps.shape[1:])
            own = np.einsum("aiihw->aihw", maps)  # (A, K, h, w)
            applied[method] = jsonable(retained(own, there).T)
            shape[method] = jsonable(retained(own, view.whole).T)
        return {"infill": infill, "applied": applied, "shape": shape}

    def update(self, measured: Mapping[str, Any] | None) -> None:
        """Add what `measure` gave."""
        self._values.start()
        if measured is None:
            return
        for kind in ("applied", "shape"):
            for method, values in measured[kind].items():
                self._values.add(method, f"{kind}|{measured['infill']}", mean_of_known(array(values)))

    def compute(self) -> Sequence[MetricRow]:
        """Two rows per method."""
        titles = {"applied": "mask on another image", "shape": "mask shape alone"}
        return titled_rows(self._values, titles)
