"""How much a `perturb` run has to do, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from .disturbances import LEVELS, REGIONS


@dataclass(frozen=True)
class Workload:
    """What is disturbed how often.

    Attributes:
        images: that are not done yet.
        filters: whose areas are disturbed in each image, at most.
        parts: whether annotated parts are disturbed too.
        disturbances: kinds of them.
        ablated: filters that are switched off, one at a time, in each image.
    """

    images: int
    filters: int
    parts: bool
    disturbances: int
    ablated: int

    @property
    def passes(self) -> int:
        """Passes through the model for the filters' areas, at most: a filter that is not active in an image has none.

        Images x filters x disturbances x strengths x places: the area itself, two controls, and all but the area.
        """
        return self.images * self.filters * self.disturbances * LEVELS * len(REGIONS)
