"""What decisions rest on, and what a detector or a segmentation network finds: texts of JSON, one per picture."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from ..model.geometry import Geometry
from ..runtime.area import AreaWish
from ..runtime.detections import find_detections
from ..runtime.engine import Pass
from ..runtime.explained_area import Evidence, rounded
from ..runtime.explanation_builder import Answering, contribution_of
from ..runtime.file_engine import FileEngine
from ..runtime.filter_request import FilterRequest
from ..runtime.segments import find_segmentation
from ..runtime.variant import FILL
from .jobs import Job

DETECTIONS: Final = "detections"
SEGMENTS: Final = "segments"
EVIDENCE: Final = "evidence"


def findings_of(
    job: Job, computed: Pass, engine: FileEngine, taken: Collection[str], wanted: Collection[str] | None
) -> dict[str, list[list[str]]]:
    """Outputs ``evidence``, ``detections`` and ``segments`` (N, 1), each where the file has something to say there.

    That is where it can be asked about classes, its model finds boxes, or is a segmentation network.
    Each text is a list of JSON objects as in ``explanations.jsonl``; boxes are in pixels of the picture, or of the
    model's input where the request held preprocessed tensors. One of ``evidence`` has ``filters`` too: of each filter
    its id, what it adds to the class, and its share.

    Args:
        job: of the request.
        computed: what the graph gave for it.
        engine: the explainer.
        taken: names that the graph's own outputs have: they go before.
        wanted: names that the request asks for; None: all.
    """
    classes, count = engine.classes, len(job.geometries)
    size = engine.metadata.input.size
    places = [geometry or Geometry(size, size, np.eye(2, 3)) for geometry in job.geometries]
    found: dict[str, list[list[str]]] = {}
    detector = classes.detector
    if detector is not None and _asked(DETECTIONS, taken, wanted) and not (detector.alone and count > 1):
        boxes = [find_detections(classes, computed.outputs, n, place) or () for n, place in enumerate(places)]
        found[DETECTIONS] = [[json.dumps([box.to_dict() for box in row])] for row in boxes]
    if computed.decisions is not None and _asked(EVIDENCE, taken, wanted):
        answering = Answering(engine.metadata, classes, FilterRequest(()), AreaWish(job.area), None)
        rows = [answering.evidence(place, computed, n) for n, place in enumerate(places)]
        found[EVIDENCE] = [[json.dumps(_decisions(row, computed, n))] for n, row in enumerate(rows)]
    if classes.class_map is not None and _asked(SEGMENTS, taken, wanted):
        maps = [find_segmentation(classes, computed.outputs, n, place) for n, place in enumerate(places)]
        found[SEGMENTS] = [[json.dumps([part.to_dict() for part in row.segments] if row else [])] for row in maps]
    return found


def _decisions(row: Sequence[Evidence], computed: Pass, n: int) -> list[dict[str, Any]]:
    """The decisions of one picture, each with what the filters add to it."""
    ids = computed.filter_ids[n]
    described = []
    for asked, one in enumerate(row):
        filters = []
        for slot in np.flatnonzero(ids != FILL).tolist():
            contribution, share = contribution_of(computed.decisions, n, slot, asked)
            filters.append({"id": int(ids[slot]), "contribution": rounded(contribution), "share": rounded(share)})
        described.append({**one.to_dict(), "filters": filters})
    return described


def _asked(name: str, taken: Collection[str], wanted: Collection[str] | None) -> bool:
    return name not in taken and (wanted is None or name in wanted)
