"""Retention AUC at the common granularity, its lift over random masks, differences, and the share of the gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...statistics.bootstrap import bootstrap_mean, bootstrap_ratio
from ..image_masks import AREAS, ImageMasks
from .interface import MetricRow
from .per_image import PerImage, array, jsonable, mean_of_known
from .registry import metric

__all__ = ["AREAS", "RetentionAUC"]


@metric(10, lambda kind, setting: kind(setting.first))
class RetentionAUC:
    """Retention AUC = mean over areas {.05 .1 .2 .3 .5} of r, with one row per infill and method.

    Every map goes to the common granularity first (cells of 8 input pixels, Gaussian of one cell), whatever its own
    resolution: a fine scatter of pixels keeps much of a picture and would win by that alone. From the same numbers:

    - lift = AUC - AUC of ``random``;
    - the paired differences to ``activation`` and to the first method;
    - share of the gain = (AUC - activation's) / (optimise's - activation's), a ratio of means.

    Args:
        first: the method that the others are compared with.
    """

    name = "retention"

    def __init__(self, first: str = "activation") -> None:
        self._first = first
        self._auc = PerImage()
        self._curves: dict[tuple[str, str | None], list[NDArray[np.float64]]] = {}

    def measure(self, view: ImageMasks) -> Any:
        """By infill and method: ``(K, A)`` retention of each filter under its own mask."""
        return {
            infill: {
                method: jsonable(np.einsum("aii->ia", view.sweep(method, infill).retention)) for method in view.saliency
            }
            for infill in view.infills
        }

    def update(self, measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Add one image's ``{infill: {method: (K, A)}}``; a dead filter's row is NaN (None) throughout."""
        self._auc.start()
        for infill, row in measured.items():
            for method, curves in row.items():
                values = array(curves)
                self._auc.add(method, infill, mean_of_known(values.mean(axis=1)))
                self._curves.setdefault((method, infill), []).append(values)

    def compute(self) -> Sequence[MetricRow]:
        """AUC, lift, differences and share of the gain of every method under every infill."""
        rows = [self._row("retention AUC", *key, self._auc.of(*key)) for key in self._auc.keys()]  # noqa: SIM118
        for title, base in self._bases().items():
            for method, infill in self._auc.keys():  # noqa: SIM118
                if method != base and base in self._auc.methods(infill):
                    difference = self._auc.of(method, infill) - self._auc.of(base, infill)
                    rows.append(self._row(title, method, infill, difference))
        return rows + self._gains()

    def curve(self, method: str, infill: str) -> NDArray[np.float64]:
        """``(A,)`` mean retention at each area over all living pairs."""
        return np.asarray(np.nanmean(np.concatenate(self._curves[method, infill]), axis=0))

    def _bases(self) -> dict[str, str]:
        bases = {"lift over random": "random", "AUC - activation": "activation"}
        if self._first not in bases.values():
            bases[f"AUC - {self._first}"] = self._first
        return bases

    @staticmethod
    def _row(title: str, method: str, infill: str | None, values: NDArray[np.float64]) -> MetricRow:
        return MetricRow(title, method, infill, bootstrap_mean(values), int((~np.isnan(values)).sum()))

    def _gains(self) -> list[MetricRow]:
        rows = []
        for method, infill in self._auc.keys():  # noqa: SIM118
            there = self._auc.methods(infill)
            if method in ("random", "activation", "optimise") or not {"activation", "optimise"} <= set(there):
                continue
            base = self._auc.of("activation", infill)
            gain, most = self._auc.of(method, infill) - base, self._auc.of("optimise", infill) - base
            count = int((~np.isnan(gain + most)).sum())
            rows.append(MetricRow("share of the gain", method, infill, bootstrap_ratio(gain, most), count))
        return rows
