"""Intervention agreement: is the part whose removal changes a filter most the part that its mask covers most?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...statistics.bootstrap import bootstrap_ratio
from ..image_masks import ImageMasks
from .interface import MetricRow
from .per_image import PerImage, array, jsonable
from .registry import metric

DOMINANCE: Final = 2.0
"""One part clearly dominates where its removal changes F_k at least so many times as much as any other's ..."""

CHANGE: Final = 0.2
"""... and by at least this share of ||F_k(x)||."""


def part_changes(view: ImageMasks) -> NDArray[np.float64]:
    """||F_k(x without part p) - F_k(x)|| / ||F_k(x)||, ``(K, P)`` in the order of the annotation's parts.

    Computed once per image.
    """
    annotation = view.annotation
    if annotation is None or not annotation.parts:
        return np.zeros((len(view.ids), 0))
    if view.changes is None:
        without = view.probe.features(np.stack([annotation.removed[part] for part in annotation.parts]), view.ids)
        change = np.linalg.norm((without - view.whole[None]).astype(np.float64), axis=(-2, -1))  # (P, K)
        norm = np.linalg.norm(view.whole.astype(np.float64), axis=(-2, -1))
        view.changes = np.divide(change, norm, out=np.full(change.shape, np.nan), where=norm > 0).T
    return view.changes


def dominant(changes: NDArray[np.float64]) -> int | None:
    """The part whose removal changes a filter clearly most, or None: ``(P,)`` -> index.

    Clearly: by at least .2 of the norm, and at least twice as much as any other part.
    """
    if not changes.size or np.isnan(changes).any():
        return None
    order = np.argsort(-changes, kind="stable")
    most = changes[order[0]]
    second = changes[order[1]] if len(order) > 1 else 0.0
    return int(order[0]) if most >= CHANGE and most >= DOMINANCE * second else None


@metric(70)
class InterventionAgreement:
    """The share of (image, filter) pairs with a dominant part whose mask covers just that part most.

    For every visible part the mask is cut at the part's own area; it covers the share |m & p| / |p|. Cut at one area
    for all, a large part would win by its size, or a small one that lies within another.
    """

    name = "intervention"

    def __init__(self) -> None:
        self._values = PerImage()

    def measure(self, view: ImageMasks) -> Any:
        """Changes ``(K, P)`` and by method the coverage ``(K, P)``; None without annotation."""
        if view.annotation is None or not view.annotation.parts:
            return None
        parts = list(view.annotation.parts.values())
        coverage = {
            method: jsonable(
                np.array(
                    [
                        [(view.mask(method, k, float(part.mean())) & part).sum() / part.sum() for part in parts]
                        for k in range(len(view.ids))
                    ]
                )
            )
            for method in view.saliency
        }
        return {"changes": jsonable(part_changes(view)), "coverage": coverage}

    def update(self, measured: Mapping[str, Any] | None) -> None:
        """Add what `measure` gave."""
        self._values.start()
        if measured is None:
            return
        targets = [dominant(row) for row in array(measured["changes"])]
        for method, coverage in measured["coverage"].items():
            covered = array(coverage)
            agree = [float(covered[k].argmax() == t) for k, t in enumerate(targets) if t is not None]
            self._values.add(method, None, sum(agree))
            self._values.add(method, "pairs", len(agree))

    def compute(self) -> Sequence[MetricRow]:
        """One row per method; the count is that of the pairs."""
        rows = []
        for method in self._values.methods(None):
            pairs = self._values.of(method, "pairs")
            value = bootstrap_ratio(self._values.of(method, None), pairs)
            rows.append(MetricRow("intervention agreement", method, None, value, int(np.nansum(pairs)), "pairs"))
        return rows
