"""Passes over images of several requests, and requests of several passes: what belongs to which images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.classifier import Classifier
from ..runtime.engine import Decisions, Pass


def rows_are_images(computed: Pass, images: int, classifier: Classifier | None = None) -> bool:
    """Whether requests can share a pass and each take its own part of every output.

    They cannot where a model gives a number for all images together or a list of detections: such a file answers
    request by request. What is the same for every image, such as anchors, comes whole.

    Args:
        computed: of a pass.
        images: how many it had.
        classifier: which outputs belong to the images, as the graph says; None: those with a row per image.
    """
    return all(_divides(name, array, images, classifier) for name, array in computed.outputs.items())


def _divides(name: str, array: Any, images: int, classifier: Classifier | None) -> bool:
    if not isinstance(array, np.ndarray):
        return False
    axis = 0 if classifier is None else classifier.axis(name)
    if axis is None:
        return classifier is not None and name not in classifier.shared
    return bool(array.shape[axis : axis + 1] == (images,))


def part_of(computed: Pass, rows: slice, classifier: Classifier | None) -> Pass:
    """What a pass says of some of its images."""

    def own(name: str, values: NDArray[Any]) -> NDArray[Any]:
        axis = 0 if classifier is None else classifier.axis(name)
        return values if axis is None else values[(slice(None),) * axis + (rows,)]

    return Pass(
        outputs={name: own(name, values) for name, values in computed.outputs.items()},
        filter_ids=computed.filter_ids[rows],
        filter_peaks=computed.filter_peaks[rows],
        area_rank=computed.area_rank[rows],
        retention=None if computed.retention is None else computed.retention[rows],
        decisions=None if computed.decisions is None else computed.decisions.of_images(rows),
    )


def joined_passes(passes: Sequence[Pass], classifier: Classifier | None) -> Pass:
    """What several passes say of the images of one request, as one pass: the reverse of `part_of`."""

    def whole(name: str) -> NDArray[Any]:
        axis = 0 if classifier is None else classifier.axis(name)
        first: NDArray[Any] = passes[0].outputs[name]
        return first if axis is None else np.concatenate([each.outputs[name] for each in passes], axis=axis)

    def rows(found: Sequence[Any]) -> Any:
        return None if found[0] is None else np.concatenate(found)

    decided = [each.decisions for each in passes if each.decisions is not None]
    about = [rows([getattr(each, field.name) for each in decided]) for field in fields(Decisions)] if decided else []
    return Pass(
        outputs={name: whole(name) for name in passes[0].outputs},
        filter_ids=rows([each.filter_ids for each in passes]),
        filter_peaks=rows([each.filter_peaks for each in passes]),
        area_rank=rows([each.area_rank for each in passes]),
        retention=rows([each.retention for each in passes]),
        decisions=Decisions(*about) if about else None,
    )
