"""What a detector or a segmentation network finds, as outputs of an answer: texts of JSON, one per picture."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

import numpy as np

from ..model.geometry import Geometry
from ..runtime.detections import find_detections
from ..runtime.engine import Pass
from ..runtime.file_engine import FileEngine
from ..runtime.segments import find_segmentation
from .jobs import Job

DETECTIONS: Final = "detections"
SEGMENTS: Final = "segments"


def findings_of(
    job: Job, computed: Pass, engine: FileEngine, taken: Collection[str], wanted: Collection[str] | None
) -> dict[str, list[list[str]]]:
    """Outputs ``detections`` and ``segments`` (N, 1), where the file's model finds boxes or is a segmentation network.

    Each text is a list of JSON objects as in ``explanations.jsonl``; boxes are in pixels of the picture, or of the
    model's input where the request held preprocessed tensors.

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
    if classes.class_map is not None and _asked(SEGMENTS, taken, wanted):
        maps = [find_segmentation(classes, computed.outputs, n, place) for n, place in enumerate(places)]
        found[SEGMENTS] = [[json.dumps([part.to_dict() for part in row.segments] if row else [])] for row in maps]
    return found


def _asked(name: str, taken: Collection[str], wanted: Collection[str] | None) -> bool:
    return name not in taken and (wanted is None or name in wanted)
