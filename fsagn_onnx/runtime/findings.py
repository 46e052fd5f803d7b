"""What a model finds in an image beside classes of the whole of it: boxes, and a map of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .explained_area import rounded


def percent(share: float) -> str:
    """A share as a percentage, with a decimal below 10%."""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"


@dataclass(frozen=True)
class Detection:
    """A box that a detector found.

    Attributes:
        index: number of the class.
        label: its name, or None.
        score: probability in [0, 1].
        box: (x0, y0, x1, y1) in pixels of the original image, continuous: pixel (row r, column c) covers
            [c, c + 1) x [r, r + 1).
    """

    index: int
    label: str | None
    score: float
    box: tuple[float, float, float, float]

    @property
    def title(self) -> str:
        """The label, or ``class N``."""
        return self.label if self.label else f"class {self.index}"

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "index": self.index, "label": self.label, "score": rounded(self.score),
            "box": [round(side, 2) for side in self.box],
        }  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A class of a segmentation network's map, and how much of the picture carries it.

    Attributes:
        index: number of the class.
        label: its name, or None.
        share: of the part of the picture that the model sees, in (0, 1].
    """

    index: int
    label: str | None
    share: float

    @property
    def title(self) -> str:
        """The label, or ``class N``."""
        return self.label if self.label else f"class {self.index}"

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {"index": self.index, "label": self.label, "share": rounded(self.share)}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The map of a segmentation network for one image.

    Attributes:
        segments: its classes, the largest first.
        places: int16 (h, w), the class of every place of the model's input; -1: none.
    """

    segments: tuple[Segment, ...]
    places: NDArray[np.int16]
