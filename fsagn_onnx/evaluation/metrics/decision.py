"""Metrics of decisions: is the evidence what the model's answer hangs on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ...runtime.depth_choice import DECISION_AREAS
from ...statistics.bootstrap import Interval, bootstrap_mean
from ..decision import answers_shown, at_granularity, exchanged, highest_places, iou, points_at
from ..decision_view import DecisionView
from ..image_masks import ImageMasks
from .interface import MetricRow
from .per_image import PerImage
from .registry import metric

CELL: Final = 4
"""Cells in pixels at which every evidence map is cut."""

SWITCHING: Final = "contributions"
"""Stands for the model's own contributions among the methods."""


@metric(80)
class DecisionMetrics:
    """Of the evidence for the model's own answer; mean over the areas .03 .05 .1 .2 .3 .5 where areas are cut.

    - ``kept``: the class's probability with the area alone; ``removed``: without it.
    - ``decision kept``: share of the areas that alone give the same answer; ``decision flipped``: share without which
      the answer is another.
    - ``evidence pointing game``: the map's highest place lies in what is annotated; ``evidence IoU``: of its highest
      places, as many as the annotation holds.
    - ``exchange agreement``: the annotation's share of highest places is exchanged for the aligned good picture's; does
      the answer change to that about the good picture, among images where exchanging the annotation does it;
      ``exchange agreement, half the area`` likewise.
    - ``contribution against switching off``: Spearman's correlation, over the layer's living filters of an image, of
      the contribution and the drop of the decision value when the filter is 0.
    - ``forward passes for one class``, ``backward passes for one class``: cost beyond the pass that gives the answer.
    """

    name = "decision"

    def __init__(self) -> None:
        self._values = PerImage()
        self._titles: dict[str, None] = {}

    def measure(self, view: ImageMasks) -> Any:
        """``{title: {method: number}}``; None where the model does not classify."""
        seen = view.decision
        if seen is None:
            return None
        rows: dict[str, dict[str, float]] = {}

        def put(title: str, method: str, value: float) -> None:
            if not np.isnan(value):
                rows.setdefault(title, {})[method] = round(float(value), 5)

        target = self._target(view, seen)
        for method, found in seen.evidence.items():
            fine = at_granularity(found, view.size, CELL)
            masks = [highest_places(fine, area) for area in DECISION_AREAS]
            shown = answers_shown(seen.answers, view.pixels, masks, seen.number, view.infills[0])
            put("kept", method, shown.kept)
            put("removed", method, shown.removed)
            put("decision kept", method, shown.stays)
            put("decision flipped", method, shown.falls)
            if seen.truth is not None and seen.truth.any():
                share = float(seen.truth.mean())
                whole, half = highest_places(fine, share), highest_places(fine, share / 2)
                put("evidence pointing game", method, points_at(fine, seen.truth))
                put("evidence IoU", method, iou(whole, seen.truth))
                if target is not None and seen.good is not None:
                    turned = seen.answers.winners(exchanged(view.pixels, seen.good, [whole, half])) == target
                    put("exchange agreement", method, float(turned[0]))
                    put("exchange agreement, half the area", method, float(turned[1]))
        put("contribution against switching off", SWITCHING, seen.agreement)
        for method, passes in seen.passes.items():
            put("forward passes for one class", method, passes.forward)
            put("backward passes for one class", method, passes.backward)
        return rows

    @staticmethod
    def _target(view: ImageMasks, seen: DecisionView) -> int | None:
        """The answer about the good picture, where exchanging the annotation gives it and the picture has another."""
        if seen.good is None or seen.truth is None:
            return None
        both = np.concatenate([seen.good[None], exchanged(view.pixels, seen.good, [seen.truth])])
        good, turned = seen.answers.winners(both).tolist()
        return int(good) if good == turned != seen.number else None

    def update(self, measured: Mapping[str, Mapping[str, float]] | None) -> None:
        """Add what `measure` gave."""
        self._values.start()
        for title, row in (measured or {}).items():
            self._titles.setdefault(title)
            for method, value in row.items():
                self._values.add(method, title, value)

    def compute(self) -> Sequence[MetricRow]:
        """One row per title and method; the count is that of the images."""
        rows = []
        for title in self._titles:
            for method in self._values.methods(title):
                values = self._values.of(method, title)
                known = values[~np.isnan(values)]
                mean = bootstrap_mean(values)
                if title.endswith("for one class"):
                    mean = Interval(*[float(known.max())] * 3)
                rows.append(MetricRow(title, method, None, mean, len(known)))
        return rows
