"""Specificity: does a mask keep its own filter better than the masks of the image's other filters do?"""

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


def specificity(retention: NDArray[np.float64]) -> NDArray[np.float64]:
    """R under m_k minus the mean r of filter k under the masks of the other filters, at equal area.

    Args:
        retention: ``(A, K, K)``, under the mask of the first filter, r of the second.

    Returns:
        ``(K, A)``; NaN where there is no other filter, or filter k is dead.
    """
    count = retention.shape[1]
    own = np.einsum("aii->ia", retention)
    if count < 2:
        return np.full(own.shape, np.nan)
    others = (retention.sum(axis=1).T - own) / (count - 1)
    return np.asarray(own - others)


@metric(30)
class Specificity:
    """The mean over areas and filters of `specificity`, per infill; above 0 unless one mask serves all filters."""

    name = "specificity"

    def __init__(self) -> None:
        self._values = PerImage()

    def measure(self, view: ImageMasks) -> Any:
        """``{infill: {method: (K, A)}}``."""
        return {
            infill: {method: jsonable(specificity(view.sweep(method, infill).retention)) for method in view.saliency}
            for infill in view.infills
        }

    def update(self, measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Add one image's ``{infill: {method: (K, A)}}``."""
        self._values.start()
        for infill, row in measured.items():
            for method, values in row.items():
                self._values.add(method, infill, mean_of_known(array(values)))

    def compute(self) -> Sequence[MetricRow]:
        """One row per method and infill."""
        rows = []
        for method, infill in self._values.keys():  # noqa: SIM118
            values = self._values.of(method, infill)
            rows.append(
                MetricRow("specificity", method, infill, bootstrap_mean(values), int((~np.isnan(values)).sum()))
            )
        return rows
