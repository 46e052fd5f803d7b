"""Part annotations as the part metrics need them: visible pixels at the model's input, and the picture without each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.annotations import open_annotations
from ..model import InputSpec
from ..runtime.infill import inpaint
from ..runtime.masks import Mask
from ..testing.synthetic import render


@dataclass(frozen=True, eq=False)
class Annotation:
    """The parts of one picture, at the model's input size.

    Attributes:
        parts: visible pixels of every part, ``(H, W)`` bool each, none of them empty.
        removed: the picture without each part, ``(H, W, c)`` pixels fitted to the model's input.
        exact: whether ``removed`` was rendered anew (True) or filled from its surroundings (False).
    """

    parts: Mapping[str, Mask]
    removed: Mapping[str, NDArray[np.uint8]]
    exact: bool


class PartMasks:
    """Part annotations in any layout that `open_annotations` reads.

    Parts of a picture of the synthetic set are removed by rendering it anew, others by inpainting their pixels; a part
    annotated several times in a picture is one part with all these pixels.

    Args:
        source: file or folder of the annotations.

    Raises:
        AnnotationError: it cannot be read or is of no known layout.
    """

    def __init__(self, source: Path) -> None:
        self._annotations = open_annotations(source)

    def of(self, path: Path, image: NDArray[np.uint8], spec: InputSpec) -> Annotation | None:
        """The annotation of a picture, or None where it has none.

        Args:
            path: of the picture.
            image: ``(H0, W0, 3)`` RGB as read.
            spec: the model's input.

        Raises:
            AnnotationError: the annotation cannot be read or is of a picture of another size.
        """
        found = self._annotations.find(path)
        if found is None:
            return None
        size = image.shape[0], image.shape[1]
        fitted = {name: fit_mask(mask, spec) for name, mask in found.masks(size).items()}
        parts = {name: mask for name, mask in fitted.items() if mask.any()}
        if found.seed is None:
            picture = spec.fit(image)[0]
            removed = {name: inpaint(picture, ~_grown(mask)) for name, mask in parts.items()}
        else:
            removed = {name: spec.fit(render(found.seed, size=size[0], remove=name).image)[0] for name in parts}
        return Annotation(parts, removed, found.seed is not None)


def fit_mask(mask: Mask, spec: InputSpec) -> Mask:
    """Bring a mask to the model's input as its picture: ``(H0, W0)`` -> ``(H, W)``; False on added borders."""
    white = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    inside, outside = spec.fit(white)[0], spec.fit(255 - white)[0]
    return np.asarray((inside[..., 0] > 127) & (outside[..., 0] < 128), dtype=np.bool_)


def _grown(mask: Mask) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), dtype=np.uint8)) > 0, dtype=np.bool_)
