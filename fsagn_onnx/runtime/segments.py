"""From the map of a segmentation network to classes and their shares of the picture."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..model.class_map import ClassMap
from ..model.geometry import Geometry
from .classes import Classes, Outputs
from .findings import Segment, Segmentation

__all__ = ["find_segmentation"]

MOST_SEGMENTS: Final = 50
"""Classes given per image: the largest ones."""
LARGEST_MAP: Final = 256
"""Longest side of the map that is kept for drawing."""
FOREGROUND: Final = "foreground"


def find_segmentation(classes: Classes, outputs: Outputs, n: int, geometry: Geometry) -> Segmentation | None:
    """The classes of image ``n`` of a pass, and their shares; None where the model has no map of classes.

    Shares are of the places whose centres lie in the picture: a letterbox's border counts for nothing.

    Args:
        classes: how the model's outputs are read.
        outputs: of the pass, by name.
        n: which image.
        geometry: from the model's input to the picture.
    """
    found = classes.class_map
    if found is None or found.output not in outputs:
        return None
    values = outputs[found.output]
    if values.ndim not in (3, 4) or n >= len(values) or not values[n].size:
        return None
    places, shares = _read(found, values[n], geometry)
    names = _names(found, classes.labels)
    order = np.argsort(-shares, kind="stable")[:MOST_SEGMENTS]
    first = 1 if found.kind == "mask" else 0
    segments = tuple(
        Segment(int(k) + first, names.get(int(k) + first), float(shares[k])) for k in order if shares[k] > 0
    )
    return Segmentation(segments, _small(places))


def _read(found: ClassMap, values: NDArray[Any], geometry: Geometry) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """The class of every place, (h, w), and every class's share."""
    scores = values if found.axis is None else np.moveaxis(values, found.axis - 1, 0)
    if found.kind == "numbers":
        numbers = scores if found.axis is None else scores[0]
        places = np.clip(np.nan_to_num(numbers.astype(np.float64), nan=-1), -1, 2**15 - 1).astype(np.int16)
        seen = places[_seen(places.shape, geometry)]
        counts = np.bincount(seen[seen >= 0], minlength=1)
        return places, counts / max(1, seen.size)
    if found.kind == "scores":
        places = scores.argmax(axis=0).astype(np.int16)
        seen = places[_seen(places.shape, geometry)]
        return places, np.bincount(seen, minlength=len(scores)) / max(1, seen.size)
    held = scores > (0 if found.logits else 0.5)
    if found.kind == "mask":
        places = np.where(held[0], 1, -1).astype(np.int16)
    else:
        places = np.where(held.any(axis=0), scores.argmax(axis=0), -1).astype(np.int16)
    inside = held[:, _seen(places.shape, geometry)]
    return places, inside.mean(axis=1) if inside.shape[1] else np.zeros(len(held))


def _seen(shape: tuple[int, ...], geometry: Geometry) -> NDArray[np.bool_]:
    """The places of a map (h, w) over the model's input whose centres lie in the picture."""
    height, width = shape
    (scale_x, _, shift_x), (_, scale_y, shift_y) = geometry.grid_matrix(height, width).tolist()
    x = (np.arange(width) + 0.5) * scale_x + shift_x
    y = (np.arange(height) + 0.5) * scale_y + shift_y
    inside_y, inside_x = (y > 0) & (y < geometry.original[0]), (x > 0) & (x < geometry.original[1])
    return np.asarray(inside_y[:, None] & inside_x[None])


def _names(found: ClassMap, labels: tuple[str, ...] | None) -> dict[int, str]:
    """Class -> name; a mask's foreground is class 1."""
    given = labels or ()
    if found.kind == "mask":
        return {1: given[-1] if len(given) in (1, 2) else FOREGROUND}
    return dict(enumerate(given)) if found.classes in (None, len(given)) else {}


def _small(places: NDArray[np.int16]) -> NDArray[np.int16]:
    scale = LARGEST_MAP / max(places.shape)
    if scale >= 1:
        return places
    size = (max(1, round(places.shape[1] * scale)), max(1, round(places.shape[0] * scale)))
    return np.asarray(cv2.resize(places, size, interpolation=cv2.INTER_NEAREST), dtype=np.int16)
