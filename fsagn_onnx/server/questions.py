"""What a request asks about: filters and classes, as numbers of a tensor or as the words of a parameter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import FsagnError
from ..runtime.class_request import MOST_CLASSES, class_slots
from ..runtime.contract import CLASSES, FILTERS, STRONGEST, WISHES
from ..runtime.file_engine import FileEngine
from ..runtime.filter_request import FilterRequest
from .settings import Settings
from .tensors import RequestError, Tensor

__all__ = ["asked_classes", "asked_filters"]


def asked_filters(
    words: str | None, tensor: Tensor | None, count: int, engine: FileEngine, settings: Settings
) -> NDArray[np.int64]:
    """The filters of every image, int64 (N, K); unless told those that `explain` asks for.

    Args:
        words: the parameter ``filters``, where it is given.
        tensor: the input ``filters``, likewise.
        count: images.
        engine: the explainer.
        settings: limits.

    Raises:
        RequestError: what is wrong.
    """
    known = engine.metadata.filters
    most = min(settings.max_filters, known)
    if tensor is None:
        default = "all" if engine.metadata.variant.slots is not None else engine.default_filters
        try:
            request = FilterRequest.parse(default if words is None else words, engine.metadata)
            engine.check_request(request.slots)
        except FsagnError as error:
            raise RequestError(str(error)) from error
        if words is not None and len(request) > most:
            raise RequestError(f"parameter '{FILTERS}' asks for {len(request)} filters, more than the limit of {most}")
        return request.tiled(count)
    if words is not None:
        raise RequestError(f"'{FILTERS}' is given as an input and as a parameter: give one of them")
    if tensor.datatype not in ("INT64", "INT32") or len(tensor.shape) != 2 or isinstance(tensor.values, list):
        raise RequestError(f"input '{FILTERS}' must be INT64 [N, K]")
    if tensor.shape[0] != count or not 1 <= tensor.shape[1] <= most:
        raise RequestError(f"input '{FILTERS}' must have shape [{count}, 1..{most}], but has {list(tensor.shape)}")
    ids = tensor.values.reshape(tensor.shape).astype(np.int64)
    least = min(WISHES) if engine.answers_classes else STRONGEST
    if ids.min() < least or ids.max() >= known:
        decisive = ", -2 for the most contributing, -3 for what speaks most against" if engine.answers_classes else ""
        raise RequestError(f"input '{FILTERS}' must hold ids in 0..{known - 1}, or -1 for the strongest{decisive}")
    for row in np.unique(ids, axis=0):
        asked = row[row >= 0]
        if len(np.unique(asked)) != len(asked):
            raise RequestError(f"input '{FILTERS}' asks for a filter twice in one image")
        try:
            engine.check_request(tuple(row.tolist()))
        except FsagnError as error:
            raise RequestError(str(error)) from error
    return ids


def asked_classes(words: str | None, tensor: Tensor | None, count: int, engine: FileEngine) -> NDArray[np.int64] | None:
    """The classes asked about, int64 (N, J); unless told the one with the highest score.

    Args:
        words: the parameter ``classes``, where it is given.
        tensor: the input ``classes``, likewise.
        count: images.
        engine: the explainer.

    Returns:
        None where the file cannot be asked about classes.

    Raises:
        RequestError: what is wrong.
    """
    if not engine.answers_classes:
        if words is not None:
            raise RequestError(engine.silent("classes"))
        return None
    if tensor is None:
        try:
            slots = class_slots([STRONGEST] if words is None else words.split(","), engine.classes)
        except FsagnError as error:
            raise RequestError(str(error)) from error
        ids = np.tile(np.asarray(slots, dtype=np.int64), (count, 1))
    else:
        if words is not None:
            raise RequestError(f"'{CLASSES}' is given as an input and as a parameter: give one of them")
        ids = _class_ids(tensor, count, engine)
    if engine.metadata.variant.slots is not None and (ids.shape[1] != 1 or (ids != STRONGEST).any()):
        raise RequestError(f"{engine.source} answers a request fixed inside: about the class with the highest score")
    return ids


def _class_ids(tensor: Tensor, count: int, engine: FileEngine) -> NDArray[np.int64]:
    known = engine.classes.count
    most = MOST_CLASSES if known is None else min(MOST_CLASSES, known)
    if tensor.datatype not in ("INT64", "INT32") or len(tensor.shape) != 2 or isinstance(tensor.values, list):
        raise RequestError(f"input '{CLASSES}' must be INT64 [N, J]; names go into the parameter '{CLASSES}'")
    if tensor.shape[0] != count or not 1 <= tensor.shape[1] <= most:
        raise RequestError(f"input '{CLASSES}' must have shape [{count}, 1..{most}], but has {list(tensor.shape)}")
    ids = tensor.values.reshape(tensor.shape).astype(np.int64)
    wrong = ids[(ids < STRONGEST) | (ids >= (np.inf if known is None else known))]
    if wrong.size:
        there = "" if known is None else f" in 0..{known - 1}"
        raise RequestError(f"input '{CLASSES}': no class {int(wrong[0])}; ids{there}, or -1 for the highest score")
    for row in ids:
        asked = row[row >= 0]
        if len(np.unique(asked)) != len(asked):
            raise RequestError(f"input '{CLASSES}' asks about a class twice in one image")
    return ids
