"""What an explainer answers for one image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..model.input_spec import Geometry
from .explained_area import Area, Box, DirectionArea, Evidence, Point, rounded
from .findings import Detection, Segmentation
from .masks import Mask, pixel_mask
from .stream import Pixels

if TYPE_CHECKING:
    from .drawing.panel import Panel

SHOWN_IDS: Final = 8
"""Filters that `repr` names."""


@dataclass(frozen=True)
class Prediction:
    """One answer of the model.

    Attributes:
        index: number of the class.
        label: its name, or None where the model has no labels.
        score: probability in [0, 1].
    """

    index: int
    label: str | None
    score: float

    @property
    def title(self) -> str:
        """The label, or ``class N``."""
        return self.label if self.label else f"class {self.index}"

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {"index": self.index, "label": self.label, "score": rounded(self.score)}


@dataclass(frozen=True, eq=False)
class FilterExplanation(Area):
    """Where one filter looks in one image; see `Area` for the rest.

    Attributes:
        id: number of the filter.
        peak: largest value of its feature map.
        contribution: what it adds to the decision value of the first asked class (phi_k, log-odds); None where no
            class was asked about.
        share: of the support for that class where it speaks for it (contribution / sum of the positive ones), of what
            speaks against where it speaks against; in [0, 1], or None.
        part: what `dissect` calls the filter, where it was told; None without.
    """

    id: int
    peak: float
    contribution: float | None = None
    share: float | None = None
    part: str | None = None

    def __repr__(self) -> str:
        retention = "" if self.retention is None else f", retention {self.retention:.2f}"
        grid = " x ".join(map(str, self.area_rank.shape))
        return f"FilterExplanation({self.id}, peak {self.peak:.3g}, area {self.area:.3f}{retention}, grid {grid})"

    @property
    def heading(self) -> str:
        """``filter 17``, with its part where that is known."""
        return f"filter {self.id} · {self.part}" if self.part else f"filter {self.id}"

    @property
    def active(self) -> bool:
        """Whether the filter answers to the image at all; the area of one that does not means nothing."""
        return self.peak > 0

    def to_dict(self) -> dict[str, Any]:
        """The filter's part of a line of ``explanations.jsonl``."""
        decision = {} if self.contribution is None else {
            "contribution": rounded(self.contribution), "share": rounded(self.share),
        }  # fmt: skip
        named = {} if self.part is None else {"part": self.part}
        return {"id": self.id, "peak": rounded(self.peak), **self.area_dict(), **decision, **named}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the asked filters look in one image, and what the model answers.

    Attributes:
        name: the path as given, or ``image-N`` for an array.
        path: the file, or None for an array.
        size: (H0, W0) of the original image, upright.
        geometry: from the pixels of the model's input to those of the original.
        predictions: the model's strongest answers, best first; empty where it is no classifier.
        filters: the filters in the order asked, or strongest first.
        evidence: what carries the decisions for the classes asked about, in the order asked; empty where none was.
        directions: where the directions asked about look, in the order asked; empty where none was.
        preview: uint8 (h', w', 3) RGB, the image reduced for drawing; empty where none was asked for.
        heads: of a model with several classifying outputs: its name -> its strongest answers, best first.
        detections: the boxes of a detector, best first; None where the model is none of a known layout.
        segmentation: the classes of a segmentation network and their shares; None where the model is none.

    Example:
        >>> explanation = Explainer("explainer.onnx").explain("photos/0.png", filters=[61], area=0.1)[0]
        >>> explanation.predictions[0].label, explanation.filter(61).area
        ('argo', 0.1)
        >>> explanation.mask(61).shape
        (128, 128)
    """

    name: str
    path: Path | None
    size: tuple[int, int]
    geometry: Geometry
    predictions: tuple[Prediction, ...]
    filters: tuple[FilterExplanation, ...]
    preview: Pixels
    evidence: tuple[Evidence, ...] = ()
    directions: tuple[DirectionArea, ...] = ()
    heads: Mapping[str, tuple[Prediction, ...]] = field(default_factory=dict)
    detections: tuple[Detection, ...] | None = None
    segmentation: Segmentation | None = None

    def filter(self, filter: int | FilterExplanation) -> FilterExplanation:
        """The explanation of a filter, by id.

        Raises:
            UsageError: the filter was not asked for.
        """
        if isinstance(filter, FilterExplanation):
            return filter
        for candidate in self.filters:
            if candidate.id == filter:
                return candidate
        there = ", ".join(str(candidate.id) for candidate in self.filters) or "none"
        raise UsageError(f"{self.name}: filter {filter} was not explained; there are {there}")

    def input_mask(self, filter: int | Area, area: float | None = None) -> Mask:
        """The area of a filter, or of a decision, on the model's input.

        Args:
            filter: id of an explained filter, or one of `filters` or `evidence`.
            area: share a to keep, in [0, 1]; None: the filter's own area.

        Returns:
            bool (H, W), True = kept, exactly round(a H W) pixels.
        """
        explained = filter if isinstance(filter, Area) else self.filter(filter)
        return pixel_mask(explained.area_rank, explained.area if area is None else area, self.geometry.size)

    def mask(self, filter: int | Area, area: float | None = None) -> Mask:
        """The area of a filter, or of a decision, on the original image.

        Args:
            filter: id of an explained filter, or one of `filters` or `evidence`.
            area: share of the model's input to keep, in [0, 1]; None: the filter's own area.

        Returns:
            bool (H0, W0), True = kept; False where the model did not look (cut off by its preprocessing).
        """
        return self.geometry.mask_to_original(self.input_mask(filter, area))

    def to_dict(self) -> dict[str, Any]:
        """The image's line of ``explanations.jsonl``: strict JSON, boxes and centroids in pixels of the original."""
        return {
            "path": self.name,
            "height": self.size[0],
            "width": self.size[1],
            "predictions": [answer.to_dict() for answer in self.predictions],
            **self._findings(),
            "filters": [explained.to_dict() for explained in self.filters],
            **({"evidence": [found.to_dict() for found in self.evidence]} if self.evidence else {}),
        }

    def _findings(self) -> dict[str, Any]:
        """What the model finds beside a class of the image; members that it cannot have are left out."""
        found: dict[str, Any] = {}
        if self.heads:
            found["heads"] = {name: [answer.to_dict() for answer in answers] for name, answers in self.heads.items()}
        if self.detections is not None:
            found["detections"] = [box.to_dict() for box in self.detections]
        if self.segmentation is not None:
            found["segments"] = [segment.to_dict() for segment in self.segmentation.segments]
        return found

    def plot(self, area: float | None = None, style: str = "outline") -> Panel:
        """The image and its filters' areas side by side, as a picture that shows itself in a notebook.

        Args:
            area: share of the model's input to show for every filter; None: the filters' own areas.
            style: ``outline`` (the area bright and outlined) or ``heat`` (all ranks as a heat map over the picture).

        Raises:
            UsageError: the area is out of range, there is no such style, or the explanation has no preview.
        """
        from .drawing.panel import Panel

        return Panel.of(self, area, style)

    def __repr__(self) -> str:
        best = f", {self.predictions[0].title!r} {self.predictions[0].score:.2f}" if self.predictions else ""
        ids = ", ".join(str(explained.id) for explained in self.filters[:SHOWN_IDS])
        more = ", ..." if len(self.filters) > SHOWN_IDS else ""
        return f"Explanation({self.name!r}, {self.size[1]} x {self.size[0]} pixels{best}, filters [{ids}{more}])"

    def _repr_png_(self) -> bytes:
        from .drawing.overlay import draw_panel, encode_png

        return encode_png(draw_panel(self))

    def _repr_html_(self) -> str:
        from .drawing.notebook import notebook_html

        return notebook_html(self)


def locate(mask: Mask, geometry: Geometry) -> tuple[Box | None, Point | None]:
    """Box and centroid of an area in pixels of the original image.

    Args:
        mask: bool (H, W) on the model's input.
        geometry: from the model's input to the original.

    Returns:
        The half-open box (x0, y0, x1, y1) of at least one pixel, and the mean of the kept pixels' centres, both of the
        part that lies inside the original image; (None, None) if none does.
    """
    height, width = geometry.original
    (scale_x, _, shift_x), (_, scale_y, shift_y) = geometry.matrix.tolist()
    # The map is a scale and a shift per axis: rows and columns can be taken one by one.
    centres_x, inside_x = _axis(mask.shape[1], scale_x, shift_x, width)
    centres_y, inside_y = _axis(mask.shape[0], scale_y, shift_y, height)
    kept = np.ascontiguousarray(mask).view(np.uint8)
    if len(centres_x) < mask.shape[1] or len(centres_y) < mask.shape[0]:
        kept = kept[np.ix_(inside_y, inside_x)]
    if kept.size == 0:
        return None, None
    per_column = cv2.reduce(kept, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
    per_row = cv2.reduce(kept, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
    columns, rows = per_column.nonzero()[0], per_row.nonzero()[0]
    if len(columns) == 0:
        return None, None
    x0, x1 = _pixel_span(centres_x[columns[0]], centres_x[columns[-1]], abs(scale_x), width)
    y0, y1 = _pixel_span(centres_y[rows[0]], centres_y[rows[-1]], abs(scale_y), height)
    total = int(per_row.sum())
    return (x0, y0, x1, y1), (float(centres_x @ per_column / total), float(centres_y @ per_row / total))


@lru_cache(maxsize=64)
def _axis(cells: int, scale: float, shift: float, extent: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Centres of an axis' pixels in the original image, those inside only; and which are. The same for all filters."""
    centres = np.asarray((np.arange(cells) + 0.5) * scale + shift, dtype=np.float64)
    inside = (centres > 0) & (centres < extent)
    return centres[inside], inside


def _pixel_span(one: float, other: float, step: float, extent: int) -> tuple[int, int]:
    """The pixels whose centres are at most half a step outside of two places, at least one, inside 0..extent."""
    low, high = min(one, other) - step / 2, max(one, other) + step / 2
    first = min(max(math.ceil(low - 0.5), 0), extent - 1)
    return first, max(min(math.ceil(high - 0.5), extent), first + 1)
