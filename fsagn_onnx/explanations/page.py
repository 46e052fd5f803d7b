"""The report of `explain`: a record per image, written image by image.

Each image is one line of the file, so that a killed run can go on with the whole lines that it left. The first
`DETAILED` images come with large pictures and all their filters, further ones small, up to `MAX_IMAGES`: about 6 MB
for 200 photographs and 45 MB for 10,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from ..report.picture import jpeg
from ..report.sheet import MAX_FAILURES, Sheet, base64, record, record_name, sheet, text
from ..runtime.drawing.found import class_color
from ..runtime.drawing.overlay import OUTLINED
from ..runtime.drawing.typeface import printable
from ..runtime.explained_area import Area, Evidence, Intervention
from ..runtime.explanation import Explanation, FilterExplanation
from ..runtime.keeping import keeping
from ..runtime.masks import FloatMap
from ..runtime.sentence import contributed, sentence
from ..runtime.stream import Failure, reduced

__all__ = [
    "DETAILED",
    "MAX_FAILURES",
    "MAX_IMAGES",
    "Detail",
    "Facts",
    "article",
    "article_name",
    "detail_of",
    "escaped_name",
    "page",
]

MAX_IMAGES: Final = 10_000
"""Images in one page."""
DETAILED: Final = 200
"""Images with large pictures."""


@dataclass(frozen=True)
class Detail:
    """How much of an image a page holds: edge and quality of the picture, filters, cells each way, bits of a rank."""

    edge: int
    quality: int
    filters: int
    cells: int
    bits: int


FULL: Final = Detail(edge=400, quality=82, filters=24, cells=64, bits=16)
SMALL: Final = Detail(edge=112, quality=70, filters=3, cells=16, bits=8)


@dataclass(frozen=True)
class Facts:
    """What the head and the foot of a page say.

    Attributes:
        source: file name of the explainer or model.
        layer: the explained layer.
        tool: name and version of this program.
        facts: further (word, value) pairs, in order.
        explained: number of explained images.
        shown: how many of these the page shows.
        failures: the images that failed (the first `MAX_FAILURES` are listed).
        failed: number of images that failed.
        style: how areas are drawn at first, see `draw_panel`.
        decided: whether classes were asked about.
    """

    source: str
    layer: str
    tool: str
    facts: Mapping[str, str]
    explained: int
    shown: int
    failures: Sequence[Failure]
    failed: int
    style: str = OUTLINED
    decided: bool = False


def page(facts: Facts, articles: Iterator[str]) -> Iterator[str]:
    """The pieces of a page in order; ``articles`` are lines of `article`."""
    shown = {"source": facts.source, "layer": facts.layer, "images": str(facts.explained), **facts.facts}
    note = f"Made by {facts.tool}."
    if facts.failed:
        shown["failed"] = str(facts.failed)
    if facts.shown < facts.explained:
        shown["shown here"] = f"the first {facts.shown}"
        note += f" All {facts.explained} images are in explanations.jsonl, masks and overlays."
    if facts.shown > DETAILED:
        note += f" After the first {DETAILED} images, pictures are small and show their three strongest filters."
    lead = (
        f"Each picture shows the area of the image that one filter of layer {facts.layer} looks at: bright inside, "
        "dimmed outside. Under “details” a slider sets the share of the model’s input to keep. What that keeps is the "
        "share of the filter’s answer that stays when everything outside is blurred; beside it stands what a random "
        "area of that size keeps. Unless told, an area is the smallest that leads a random one by nearly the most."
    )
    heading = "Where the filters look"
    if facts.decided:
        heading = "Why the model decided so"
        lead += (
            " Evidence is the area that the decision for a class rests on; filters come by what they add to it. Every "
            "number of a sentence was measured on its image; where measuring shows nothing, there is none."
        )
    frame = Sheet(
        kind="explain",
        heading=heading,
        title=f"{heading} · {facts.source}",
        lead=lead,
        facts=shown,
        files="explanations.jsonl, masks and overlays",
        tool=facts.tool,
        note=note,
        about={"style": facts.style},
        failures=facts.failures,
        failed=facts.failed,
    )
    yield from sheet(frame, articles)


def article(explanation: Explanation, name: str, detail: Detail = FULL) -> str:
    """The line of one image, with its line break.

    Args:
        explanation: of the image.
        name: the stem of the image's files in ``masks`` and ``overlays``.
        detail: how much of it.
    """
    geometry = explanation.geometry
    (scale_x, _, shift_x), (_, scale_y, shift_y) = geometry.matrix.tolist()
    shown = explanation.filters[: detail.filters]
    members = {
        "name": printable(explanation.name),
        "stem": printable(name),
        "size": list(explanation.size),
        "input": list(geometry.size),
        "affine": [float(f"{value:.8g}") for value in (scale_x, shift_x, scale_y, shift_y)],
        "picture": jpeg(reduced(explanation.preview, detail.edge), detail.quality),
        "answers": [[printable(answer.title), round(answer.score, 4)] for answer in explanation.predictions],
        **_findings(explanation, detail),
        "why": [_decision(explanation, found, detail) for found in explanation.evidence],
        "filters": [_filter(explained, detail) for explained in shown],
        "more": len(explanation.filters) - len(shown),
    }
    return record(name, members)


def _findings(explanation: Explanation, detail: Detail) -> dict[str, Any]:
    """Heads, boxes and segments, as far as the model can have them."""
    found: dict[str, Any] = {}
    if explanation.heads:
        found["heads"] = [
            [printable(name), [[printable(answer.title), round(answer.score, 4)] for answer in answers[:3]]]
            for name, answers in explanation.heads.items()
        ]
    if explanation.detections is not None:
        found["boxes"] = [
            [printable(box.title), round(box.score, 4), [round(side, 1) for side in box.box], _hex(box.index)]
            for box in explanation.detections[: detail.filters]
        ]
        found["many"] = len(explanation.detections)
    if explanation.segmentation is not None:
        found["segments"] = [
            [printable(segment.title), round(segment.share, 4), _hex(segment.index)]
            for segment in explanation.segmentation.segments[: detail.filters]
        ]
    return found


def _hex(index: int) -> str:
    """The colour of a class, as the overlays have it."""
    red, green, blue = class_color(index)
    return f"#{red:02x}{green:02x}{blue:02x}"


def detail_of(number: int) -> Detail | None:
    """How much a page shows of its image ``number`` (from 0 on); None: nothing."""
    if number >= MAX_IMAGES:
        return None
    return FULL if number < DETAILED else SMALL


def article_name(line: str) -> str | None:
    """The (escaped) name that a line of `article` carries; None if it is no whole line of one."""
    return record_name(line)


def escaped_name(name: str) -> str:
    """A name as `article_name` gives it."""
    return text(name)


def _decision(explanation: Explanation, found: Evidence, detail: Detail) -> dict[str, Any]:
    return {
        "title": printable(found.title),
        "sentence": printable(sentence(explanation, found) or ""),
        "decision": float(f"{found.decision:.4g}"),
        "removed": _intervention(found.removed),
        "control": _intervention(found.control),
        "kept": _intervention(found.kept),
        **({"flat": True} if found.flat else {}),
        **_area(found, detail),
    }


def _intervention(found: Intervention | None) -> list[Any] | None:
    return None if found is None else [printable(found.title), round(found.score, 4)]


def _filter(explained: FilterExplanation, detail: Detail) -> dict[str, Any]:
    return {
        "id": explained.id,
        "peak": float(f"{explained.peak:.4g}"),
        "part": printable(explained.part or ""),
        "adds": printable(contributed(explained)),
        **_area(explained, detail),
    }


def _area(explained: Area, detail: Detail) -> dict[str, Any]:
    rank = _coarse(explained.area_rank, detail.cells)
    top = 2**detail.bits - 1
    packed = np.clip(np.rint(rank * top), 0, top).astype("<u2" if detail.bits == 16 else "u1")
    return {
        "active": explained.active,
        "area": float(f"{explained.area:.6g}"),
        "grid": list(rank.shape),
        "bits": detail.bits,
        "rank": base64(packed.tobytes()),
        "curve": [[float(f"{area:.4g}"), round(retention, 3)] for area, retention in explained.curve],
        "error": explained.prediction_error,
        "keeps": keeping(explained, "the decision" if isinstance(explained, Evidence) else "the filter's answer"),
    }


def _coarse(rank: FloatMap, cells: int) -> FloatMap:
    height, width = min(rank.shape[0], cells), min(rank.shape[1], cells)
    if (height, width) == rank.shape:
        return rank
    return np.asarray(cv2.resize(rank, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
